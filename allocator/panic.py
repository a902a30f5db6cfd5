"""Stop the run when the emulated kernel finds itself in an impossible state, or out of memory.

`panic(ram, cpu, CODE, a, b)` does not return: it leaves the process through the shell, and the supervisor
prints the code's text with both values. It replaces exceptions, which cannot cross the text table.
"""

from __future__ import annotations

from dataclasses import dataclass

from cpus.abi.numbered import Numbered
from cpus.compiled import kernel, later
from cpus.host import EXIT_STOPPED


@dataclass(frozen=True, slots=True)
class Panic:
    """What is said when the run stops, with {a} and {b}; `rule` says what a workload has to do not to get it,
    if a workload can be to blame. `names_page`: {a} is a page number of its address space.
    """

    text: str
    rule: str = ""
    names_page: bool = True


PANICS = Numbered[Panic]()
OUT_OF_MEMORY = PANICS.add(
    Panic(
        "out of memory: no page of node {a} after {b} rounds of direct reclaim; "
        "give the machine more memory or the workload less"
    ),
    1,  # 0: nobody has stopped the run
)
DOUBLE_FREE = PANICS.add(Panic("buddy: frame {a} is freed twice (flags {b:#x})"))
FOREIGN_FRAME = PANICS.add(Panic("buddy: frame {a} lies outside zone {b}"))
BAD_REFCOUNT = PANICS.add(Panic("page {a}: reference count fell to {b}"))
BAD_MAPCOUNT = PANICS.add(Panic("page {a}: mapcount fell to {b}"))
SEGV_MAPERR = PANICS.add(
    Panic(
        "page fault at vpn {a:#x} of mm {b}: no mapping there (SIGSEGV)",
        "must name mapped pages, but nothing is mapped there (SIGSEGV)",
    )
)
SEGV_ACCERR = PANICS.add(
    Panic(
        "write to read-only mapping at vpn {a:#x} of mm {b} (SIGSEGV)",
        "must name pages whose rights allow it, but they do not (SIGSEGV)",
    )
)
BAD_OPERATION = PANICS.add(Panic("program: row {a} has unknown operation {b}"))
BAD_LRU = PANICS.add(Panic("lru: page {a} is on no list (flags {b:#x})"))
BUS_ERROR = PANICS.add(
    Panic(
        "read past the end of file: page {a} of object {b} (SIGBUS)",
        "must name pages of its file, but this is behind the end (SIGBUS)",
        names_page=False,
    )
)
TOO_MANY_VMAS = PANICS.add(
    Panic(
        "too many VMAs in mm {a} (limit {b})",
        "must not make more mappings than a process may have (ENOMEM)",
        names_page=False,
    )
)
NOT_FREE = PANICS.add(
    Panic(
        "mmap: {b} pages at vpn {a:#x} are not free there",
        "must name a place where nothing is mapped, but something is",
    )
)
NO_ADDRESS = PANICS.add(
    Panic(
        "mmap: no free address range of {b} pages in mm {a}",
        "must leave room in the address space (ENOMEM)",
        names_page=False,
    )
)
NO_VMA = PANICS.add(
    Panic(
        "mmap: no VMA is left for mm {a} (the machine has {b})",
        "must not make more mappings than there is memory for (ENOMEM)",
        names_page=False,
    )
)
TABLE_IN_USE = PANICS.add(Panic("page table {a} was freed while its entry {b} still maps something"))
STILL_ALIVE = PANICS.add(
    Panic(
        "fork: process {a} cannot be started again before it has ended (mm {b})",
        "must not fork a process again that has not ended",
        names_page=False,
    )
)
SEVERAL_MAPPINGS = PANICS.add(
    Panic(
        "mremap: another mapping begins at vpn {a:#x} of mm {b} (EFAULT)",
        "must name pages of one mapping, but another one begins there (EFAULT)",
    )
)
MOVED_ONTO_ITSELF = PANICS.add(
    Panic(
        "mremap: {b} pages at vpn {a:#x} are moved onto themselves (EINVAL)",
        "must not move pages onto themselves (EINVAL)",
    )
)
BEYOND_USER_SPACE = PANICS.add(
    Panic(
        "mmap: {b} pages at vpn {a:#x} reach beyond the end of user space (ENOMEM)",
        "must not reach beyond the end of user space (ENOMEM)",
    )
)
HAS_NO_PLACE = PANICS.add(
    Panic(
        "region {b} of process {a} has no place yet",
        "must name a region that has a place: mmap it first",
        names_page=False,
    )
)
NOT_ANONYMOUS = PANICS.add(
    Panic(
        "madvise: vpn {a:#x} of mm {b} shows a file, and MADV_FREE is for anonymous memory (EINVAL)",
        "with MADV_FREE must name anonymous memory, but a file is mapped there (EINVAL)",
    )
)
TIME_IS_OVER = PANICS.add(
    Panic(
        "virtual time beyond {b:,} ns, where clocks end (got {a:,} ns): "
        "give the machine smaller costs or the workload fewer accesses",
        "takes the run beyond 10,000,000 s of virtual time, where clocks end: it needs fewer accesses, or "
        "the machine smaller costs",
        names_page=False,
    )
)

CUT_SHORT = PANICS.add(
    Panic(
        "cut short: {a:,} scheduling points were passed (limit {b:,})",
        "passes more scheduling points than its schedule allows",
        names_page=False,
    )
)

shell_panic, shell_leave = later("shell_panic", 4), later("shell_leave", 2)


def panic_text(code: int, a: int, b: int) -> str:
    """Give the sentence of a panic."""
    return PANICS[code].text.format(a=a, b=b)


@kernel
def panic(ram, cpu, code, a, b):
    """Stop the run; does not return."""
    shell_panic(ram, cpu, code, a, b)
    shell_leave(ram, cpu, EXIT_STOPPED)
