"""Stop the run when the emulated kernel finds itself in an impossible state, or out of memory.

`panic(ram, cpu, CODE, a, b)` does not return: it leaves the process through the shell, and the supervisor
prints the text with both values. It replaces exceptions, which cannot cross the text table.
"""

from cpus.compiled import kernel, later

PANIC_TEXTS = (
    "no panic",
    "out of memory: no page of node {a} after {b} rounds of direct reclaim; give the machine more "
    "memory or the workload less",
    "buddy: frame {a} is freed twice (flags {b:#x})",
    "buddy: frame {a} lies outside zone {b}",
    "page {a}: reference count fell to {b}",
    "page {a}: mapcount fell to {b}",
    "page fault at vpn {a:#x} of mm {b}: no mapping there (SIGSEGV)",
    "write to read-only mapping at vpn {a:#x} of mm {b} (SIGSEGV)",
    "program: row {a} has unknown operation {b}",
    "lru: page {a} is on no list (flags {b:#x})",
    "read past the end of file: page {a} of object {b} (SIGBUS)",
    "too many VMAs in mm {a} (limit {b})",
    "mmap: {b} pages at vpn {a:#x} are not free there",
    "mmap: no free address range of {b} pages in mm {a}",
    "mmap: no VMA is left for mm {a} (the machine has {b})",
    "page table {a} was freed while its entry {b} still maps something",
    "fork: process {a} cannot be started again before it has ended (mm {b})",
)
(_, OUT_OF_MEMORY, DOUBLE_FREE, FOREIGN_FRAME, BAD_REFCOUNT, BAD_MAPCOUNT, SEGV_MAPERR, SEGV_ACCERR,
 BAD_OPERATION, BAD_LRU, BUS_ERROR, TOO_MANY_VMAS, NOT_FREE, NO_ADDRESS, NO_VMA, TABLE_IN_USE,
 STILL_ALIVE) = range(len(PANIC_TEXTS))  # fmt: skip

shell_panic = later("shell_panic", 4)


@kernel
def panic(ram, cpu, code, a, b):
    """Stop the run; does not return."""
    shell_panic(ram, cpu, code, a, b)
