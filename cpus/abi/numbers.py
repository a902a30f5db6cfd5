"""Numbers that programs and the kernel both know: pages, accesses, rights, advice. Linux's, if it has any."""

from __future__ import annotations

from cpus.abi.numbered import Numbered

PAGE_BYTES = 4096
PAGES_PER_MIB = (1 << 20) // PAGE_BYTES
CPUS_MAX = 256
LEASES_MAX = 62  # CPUs that execute at a time: they are the bits of one word
TASK_SIZE = 1 << 35  # pages of user space: 128 TiB

ACCESSES = Numbered[str]()
LOAD = ACCESSES.add("LOAD")
STORE = ACCESSES.add("STORE")
IFETCH = ACCESSES.add("IFETCH")

RIGHTS = Numbered[str]()  # include/uapi/asm-generic/mman-common.h
PROT_NONE = RIGHTS.add("PROT_NONE", 0)
PROT_READ = RIGHTS.add("PROT_READ", 1)
PROT_WRITE = RIGHTS.add("PROT_WRITE", 2)
PROT_EXEC = RIGHTS.add("PROT_EXEC", 4)

ADVICE = Numbered[str]()  # the same
MADV_DONTNEED = ADVICE.add("MADV_DONTNEED", 4)
MADV_FREE = ADVICE.add("MADV_FREE", 8)
MADV_COLD = ADVICE.add("MADV_COLD", 20)
MADV_PAGEOUT = ADVICE.add("MADV_PAGEOUT", 21)
