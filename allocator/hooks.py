"""Where a flush design decides: every hook with its arguments, the locks held, and what its result means.

A hook is `int64 hook(ram, cpu, a, b, c, d)`, of which only the arguments named here mean something. A design
that has nothing to say at a point leaves the default, which returns 0. The memory management never looks at a
design's own fields, and knows it only here. To add a hook, declare it and call it:
`call(ram, HOOK_TAKE, cpu, zone, pfn, key, order)`. `luf list hooks` prints this table.
"""

from __future__ import annotations

from dataclasses import dataclass

from cpus.compiled import Text, entry
from cpus.declare import Held, OneOf

IGNORED = "ignored"


@dataclass(frozen=True, slots=True)
class Hook(Text):
    """A place of the text table that a design may fill.

    `asks` names its arguments behind the CPU, with what each is. `held` are locks that its caller holds, all
    of them, and `at` of a lock is the argument that says which one, or "any". Where `waits`, no spin lock is
    held and interrupts are on, so that the design may flush and wait for acks.
    """

    asks: tuple[tuple[str, str], ...] = ()
    held: tuple[Held | OneOf, ...] = ()
    waits: bool = False
    when: str = ""
    result: str = IGNORED

    @property
    def short(self) -> str:
        """The name that designs use: "take"."""
        return self.name.removeprefix("hook_")

    @property
    def signature(self) -> str:
        """What a function for it takes: (ram, cpu, zone, b, c, d)."""
        named = [name for name, _ in self.asks]
        return f"({', '.join(['ram', 'cpu', *named, *'abcd'[len(named) :]])})"


HOOKS: dict[str, Hook] = {}


def _hook(
    name: str, when: str, *held: Held | OneOf, waits: bool = False, result: str = IGNORED, **asks: str
) -> Hook:
    """Declare a hook: what has happened, or is about to; locks; the meaning of its result; its arguments."""
    hook = Hook(f"hook_{name}", asks=tuple(asks.items()), held=held, waits=waits, when=when, result=result)
    return HOOKS.setdefault(name, hook)


# --- reclaim and migration unmap ----------------------------------------------------------------------------

HOOK_PTE_CLEARED = _hook(
    "pte_cleared",
    "a PTE was cleared, and its frame cannot have gone anywhere yet",
    Held("page_lock_word", "any"),
    Held("object_lock", "object"),
    mm="address space",
    vpn="page of it",
    pte="what the PTE was",
    object="file or anonymous memory that it belongs to",
    result="1: it was read-only, and its flush may wait for the frame's next owner",
)
HOOK_WALK_DONE = _hook(
    "walk_done",
    "all mappings of a page have been looked at",
    Held("page_lock", "pfn"),
    pfn="frame of the page",
    deferred="1: the flushes of all of them may wait",
    unmapped="1: none is left",
    flushed="1: one was writable, and flushed at once",
    result="1: free it with the batch's key",
)
HOOK_UNMAP_FLUSH = _hook(
    "unmap_flush",
    "a batch of pages is about to be freed: what was cleared is flushed, but for what a key stands for",
    waits=True,
)
HOOK_UNMAP_FLUSH_DIRTY = _hook(
    "unmap_flush_dirty",
    "kswapd is about to write a page to disk: writable and dirty translations are flushed",
    waits=True,
    kept="1: pages that were unmapped are kept after all, so what stands for them is flushed too",
)
HOOK_BATCH_KEY = _hook(
    "batch_key",
    "a batch of pages is about to be freed",
    waits=True,
    result="key of those whose flushes wait; 0: nothing is pending",
)
HOOK_YOUNG_CLEARED = _hook(
    "young_cleared",
    "reclaim has cleared an accessed bit, and has not flushed",
    Held("page_lock_word", "any"),
    mm="address space",
    vpn="page of it",
    pfn="frame",
)

# --- frames are freed and taken -----------------------------------------------------------------------------

HOOK_KEEP = _hook(
    "keep",
    "a frame with a key is about to be freed",
    pfn="frame",
    key="its key",
    result="1: the design keeps the frame, and frees it itself later",
)
HOOK_PAGE_FREED = _hook(
    "page_freed",
    "a block enters a free list of the buddy",
    Held("zone_lock", "zone"),
    zone="zone",
    pfn="first frame of the block",
    key="its key",
    order="its order",
    result="key to keep on it",
)
HOOK_TAKE_BEGIN = _hook(
    "take_begin",
    "pages may be taken from here to HOOK_TAKE_DONE",
    waits=True,
    zone="zone, or -1: a CPU's list (pcp)",
    buddy="1: rmqueue_buddy; 0: rmqueue_bulk, which Linux does under the pcp lock",
)
HOOK_PEND_FIRST = _hook(
    "pend_first",
    "a block is about to be chosen",
    Held("zone_lock", "zone"),
    zone="zone",
    result="0: clean blocks first within an order; 1: keyed blocks first; 2: clean blocks of any order before keyed ones",
)
HOOK_TAKE_CHECK = _hook(
    "take_check",
    "a block with a key was found",
    OneOf(Held("zone_lock", "zone"), Held("pcp_lock", "any")),
    zone="zone, or -1: a CPU's list (pcp)",
    pfn="first frame of the block",
    key="its key",
    order="its order",
    result="1: it may be taken now",
)
HOOK_TAKE = _hook(
    "take",
    "a block with a key leaves the allocator",
    OneOf(Held("zone_lock", "zone"), Held("pcp_lock", "any")),
    zone="zone, or -1: a CPU's list (pcp)",
    pfn="first frame of the block",
    key="its key",
    order="its order",
)
HOOK_TAKE_DONE = _hook("take_done", "what was taken may be used when this returns", waits=True)
HOOK_PRESSURE = _hook(
    "pressure", "no zone is above its low watermark (__alloc_pages_slowpath)", waits=True, node="node"
)

# --- faults, and changes by users ---------------------------------------------------------------------------

HOOK_FAULT_BEGINS = _hook(
    "fault_begins",
    "handle_mm_fault is about to begin",
    Held("mm_lock", "mm", shared=True),
    waits=True,
    mm="address space",
    vma="area",
    vpn="page",
    store="1: it is a store",
)
HOOK_WRITE_FAULT = _hook(
    "write_fault",
    "a writable mapping is about to be seen",
    Held("mm_lock", "mm", shared=True),
    waits=True,
    mm="address space",
    vma="area",
    vpn="page",
    object="file or anonymous memory",
)
HOOK_FAULT_DONE = _hook(
    "fault_done",
    "a fault was handled, and all see its PTE",
    Held("mm_lock", "mm", shared=True),
    waits=True,
    mm="address space",
    vma="area",
    vpn="page",
    store="1: it was a store",
)
HOOK_MAPPING_CHANGE = _hook(
    "mapping_change",
    "PTEs of a table are about to be changed by their user (flush_tlb_batched_pending)",
    Held("page_lock_word", "any"),
    mm="address space",
)
HOOK_VMA_DONE = _hook(
    "vma_done",
    "PTEs of an area were torn down (tlb_end_vma), or one that no TLB may have (ptep_clear_flush)",
    OneOf(Held("mm_lock", "mm", shared=True), Held("object_lock", "any")),
    mm="address space",
    vma="area",
)
HOOK_USER_FLUSH = _hook(
    "user_flush",
    "a gather is about to flush",
    OneOf(Held("mm_lock", "mm", shared=True), Held("object_lock", "any")),
    mm="address space",
    start="first page",
    end="behind the last page",
    munmap="1: of a munmap that frees no page table",
    result="0: flush now; else nothing is flushed, and its pages are freed with this key",
)
HOOK_MAP = _hook(
    "map",
    "addresses that were free are about to be used",
    Held("mm_lock", "mm"),
    waits=True,
    mm="address space",
    start="first page",
    end="behind the last page",
)

# --- files --------------------------------------------------------------------------------------------------

HOOK_WRITE_BEGINS = _hook(
    "write_begins",
    "write(2) has its page, and will ask HOOK_FILE_WRITE",
    Held("page_lock", "any"),
    waits=True,
    object="file",
    page="page of it",
)
HOOK_FILE_WRITE = _hook(
    "file_write",
    "the page cache is about to change",
    Held("page_lock", "any"),
    waits=True,
    object="file",
    page="page of it",
)
HOOK_TRUNCATE = _hook(
    "truncate",
    "pages of a file are about to go, or have gone for a direct write",
    waits=True,
    object="file",
    page="the first page of it",
)
HOOK_TRUNCATED = _hook(
    "truncated",
    "pages of a file are gone (truncated, invalidated)",
    waits=True,
    object="file",
    page="the first page of it",
)
HOOK_MKCLEAN = _hook(
    "mkclean",
    "the PTEs of a page were made clean and read-only (folio_mkclean)",
    Held("page_lock", "any"),
    waits=True,
    object="file",
    page="page of it",
)

# --- the kernel writes to frames (kmap.py) ------------------------------------------------------------------

HOOK_KMAP = _hook(
    "kmap",
    "the kernel is about to write to a frame",
    pfn="frame",
    place="KMAP_*",
    a="address space, or object, as kmap.py says for the place",
    b="page of it",
)
HOOK_MKWRITE = _hook(
    "mkwrite",
    "a PTE that maps a frame is about to become writable",
    Held("page_lock_word", "any"),
    pfn="frame",
    place="MKWRITE_*",
    mm="address space",
    vpn="page of it",
)

# --- CPUs ---------------------------------------------------------------------------------------------------

HOOK_CONTEXT_SWITCH = _hook(
    "context_switch",
    "another task is about to run",
    waits=True,
    before="address space that was loaded",
    after="the one that is loaded now",
    task="task",
)
HOOK_RELEASE = _hook(
    "release", "a kernel thread lets go of a borrowed address space", waits=True, mm="address space"
)
HOOK_TICK = _hook("tick", "the scheduler's tick", waits=True)
HOOK_IDLE = _hook("idle", "the CPU has nothing to do, and is about to sleep", waits=True)
HOOK_KTHREAD = _hook(
    "kthread",
    "the design's kernel thread runs (a design with this hook has one)",
    waits=True,
    result="1: more to do; 0: sleep until wake_kthread",
)
HOOK_SHOOTDOWN = _hook(
    "shootdown",
    "CPUs are about to be asked to flush; they are in call_mask",
    mm="address space, or 0: several",
    freed="1: page tables were freed",
    targets="how many CPUs",
    result="0: by interrupts acked after the flush; 1: acked when the handler is entered; 2: by a broadcast of the hardware",
)
HOOK_INTERRUPT = _hook("interrupt", "the flush that another CPU asked for was done here", sender="that CPU")
HOOK_FLUSHED = _hook(
    "flushed", "this CPU has just flushed everything of the address space that it loads", mm="address space"
)


@entry(HOOK_TICK)
def nothing(ram, cpu, a, b, c, d):
    """The default of every hook: nothing to do, nothing to say."""
    return 0
