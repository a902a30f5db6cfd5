"""The oracle on states: before a frame or a page changes, no CPU may have a translation that it would still
use and must not.

An access through a stale translation is judged when it happens (oracle.py). Here the moment is judged at
which it could first do harm: the allocator hands a frame out, or clears it, or the kernel fills it (frames
here, pages in exposed_pages.py). If a TLB still holds a translation to it that nothing will flush, the frame
is *exposed*, whether somebody uses that or not. A translation counts if its PTE shows the frame no more, and
- the CPU has the address space loaded, and neither keeps it lazily, nor is just loading it, nor serves an
  interrupt (a flush that was acked early is done before that ends); or
- the CPU's slot has reached the newest tlb_gen of the address space, so that nothing makes it flush any more,
  neither a request nor coming back to it.
It does not count if a process takes the frame whose own translation it is, at an address that it has
unmapped: a program does not use that, and reads its own memory if it does (that is told as access after
completion).

Each frame has a word with the first CPU that has filled an entry of it since it was last seen to be in no
TLB, and the page that it filled it for, and one with all others (numbers of CPUs modulo FILLERS): mostly both
are 0, else one set of each TLB is searched. A CPU says that it fills an entry before it reads the PTE for the
last time, so who has cleared the PTE after that sees it.

What others do meanwhile: the owner writes an entry's tag as empty, then its value, then the tag. Who looks
reads tag, value, whatever else there is to know of that CPU, and the tag again: if it has not changed, both
belonged together, and the entry was there after all else was read. `cpu_switches` is odd inside switch_mm,
and must be the same before and after. So an entry that is reported was there at that moment, and what was
read of its CPU was true of it.
Left out: entries filled by a walk that began before the PTE was cleared and ends after the look.
"""

from cpus.abi.numbered import Numbered
from cpus.atomics import compare_exchange, fetch_add, fetch_and, fetch_or, load_acquire, store_release
from cpus.compiled import apart, generator, inlined, kernel, later
from cpus.completion import marked
from cpus.declare import ANY, OWNER, Atomic, Constant, Exclusive, Field, Struct
from cpus.events import draw_place
from cpus.host import EXIT_STOPPED
from cpus.lease import VIOLATED
from cpus.oracle import VERSION_BITS
from cpus.page_table import LEVEL_MASK, PTE_PRESENT, find_table, pte_pfn, ptep_get
from cpus.ram import row
from cpus.tlb import CONTEXT_BITS, CONTEXT_MASK, EMPTY, VALUE_SHIFT, has_page

EXPOSURES_KEPT, WINDOWS_KEPT, EXPOSURE_WORDS = 64, 8, 16
FIELDS = (
    Constant("states", "1: frames and pages are looked at before they change"),
    Constant("exposures_limit", "exposures after which the run ends, 0: it goes on"),
    Struct("one", "tasks", (
        Field("run_exposures", Atomic("fetch_add"), "exposures found", oracle=True),
        Field("run_windows", Atomic("fetch_add"), "those that vanilla leaves open, too", oracle=True),
    )),
    Field("exposure", Exclusive("winner of run_exposures, or behind these of run_windows"),
          "details of the first ones", (EXPOSURES_KEPT + WINDOWS_KEPT, EXPOSURE_WORDS), oracle=True),
    Field("frame_fills",
          Atomic("compare_exchange", "fetch_or", "fetch_and", "store_release", why="who fills, clears, asks"),
          "FIRST and OTHERS that have filled an entry of the frame, BATCH in which its last PTE was cleared",
          ("nr_frames", 4), oracle=True),  # 4: two frames in a cache line
    Struct("nr_cpus", "clock", (
        Field("cpu_batches", OWNER, "batches of reclaim and migration that it has flushed", reads=ANY,
              oracle=True),
    )),
)  # fmt: skip

# columns of frame_fills: page + 1 and CPU of the first; a bit for each other CPU; CPU and number of a batch
FIRST, OTHERS, BATCH = range(3)
FILLERS = 63  # bits of OTHERS: it is never negative
FILLER_BITS, BATCH_SHIFT = 6, 16
SEVERAL = 1 << 62  # of FIRST: it was filled for more than one page
ANY_PAGE = -1

OCCASIONS = Numbered[tuple[str, str]]()  # what is done, and before what a CPU had to flush
HANDED_OUT = OCCASIONS.add(("hand out frame {}", "frame {} was handed out"), 1)  # 0: details are not complete
CLEARED = OCCASIONS.add(("clear frame {}", "frame {} was cleared"))
FILLED = OCCASIONS.add(("fill frame {}", "frame {} was filled"))
FIRST_OF_PAGES = FILLED + 1  # the occasions behind are those of pages

LOADED, REACHED = 1, 2  # why a CPU would use the entry: address space loaded; its slot is not behind
# what took a translation away is not over: a batch of the CPU itself, one of another CPU, a user's change
ITS_OWN, OPEN, UNDER_WAY = 1, 2, 3

address_is_mapped = later("address_is_mapped", 2)


# --- who has it ---------------------------------------------------------------------------------------------


@kernel
def bit_of(cpu):
    """The bit that stands for a CPU, and for those FILLERS apart from it."""
    return 1 << (cpu % FILLERS)


@kernel
def _note_another(ram, cpu, vpn, pfn, first):
    """Note a fill beside the first one."""
    if first & SEVERAL == 0 and first >> FILLER_BITS != vpn + 1:
        fetch_or(ram.frame_fills, (pfn, FIRST), SEVERAL)
    if load_acquire(ram.frame_fills, (pfn, OTHERS)) & bit_of(cpu) == 0:
        fetch_or(ram.frame_fills, (pfn, OTHERS), bit_of(cpu))


@inlined
def note_fill(ram, cpu, vpn, pfn):
    """Say that this CPU is about to fill an entry with a frame, before it reads the PTE for the last time."""
    fill, first = ((vpn + 1) << FILLER_BITS) | (cpu % FILLERS), load_acquire(ram.frame_fills, (pfn, FIRST))
    if first == 0:
        first = compare_exchange(ram.frame_fills, (pfn, FIRST), 0, fill)
    if first != 0 and first != fill:
        _note_another(ram, cpu, vpn, pfn, first)


@kernel
def fills_of(ram, pfn):
    """Who has filled an entry of a frame: (one bit for each CPU, the page that they filled it for, or
    ANY_PAGE).
    """
    first, fillers = load_acquire(ram.frame_fills, (pfn, FIRST)), load_acquire(ram.frame_fills, (pfn, OTHERS))
    if first == 0:  # of two that came as somebody looked, the first was forgotten
        return fillers, ANY_PAGE
    page = (first >> FILLER_BITS) - 1 if first & SEVERAL == 0 else ANY_PAGE
    return fillers | 1 << (first & ((1 << FILLER_BITS) - 1)), page


@kernel
def was_filled(ram, pfn):
    """Has anybody filled an entry of a frame since it was last seen to be in no TLB?"""
    first, others = load_acquire(ram.frame_fills, (pfn, FIRST)), load_acquire(ram.frame_fills, (pfn, OTHERS))
    return first | others != 0


@inlined
def note_unmap(ram, cpu, pfn):
    """Say that a PTE is about to be cleared whose flush belongs to this CPU's batch."""
    if ram.states or ram.check:
        store_release(ram.frame_fills, (pfn, BATCH), (cpu + 1) | (ram.cpu_batches[cpu] << BATCH_SHIFT))


@kernel
def batch_is_flushed(ram, cpu):
    """Say that vanilla has flushed this CPU's batch by now."""
    store_release(ram.cpu_batches, cpu, ram.cpu_batches[cpu] + 1)


@kernel
def unflushed_by(ram, pfn):
    """The CPU whose batch took the frame's mapping away and is not flushed yet, -1 none."""
    batch = load_acquire(ram.frame_fills, (pfn, BATCH))
    unmapper = (batch & ((1 << BATCH_SHIFT) - 1)) - 1
    if unmapper < 0 or load_acquire(ram.cpu_batches, unmapper) != batch >> BATCH_SHIFT:
        return -1
    return unmapper


@kernel
def batch_of(ram, other, pfn):
    """Is the batch that took the frame's mapping away not flushed yet, and whose is it (ITS_OWN, OPEN)?"""
    unmapper = unflushed_by(ram, pfn)
    if unmapper < 0:
        return 0
    return ITS_OWN if unmapper == other else OPEN


@kernel
def _slot_of(ram, other, context):
    """The ASID slot of a CPU whose entries bear a context, -1 if that is nobody's any more."""
    for slot in range(ram.nr_asids):
        if load_acquire(ram.asid_context, (other, slot)) == context:
            return slot
    return -1


@kernel
def _would_use(ram, other, slot, mm):
    """Why a CPU would use the entries of a slot as they are (LOADED, REACHED), 0 if it would not."""
    loaded = load_acquire(ram.cpu_loaded_mm, other) == mm and load_acquire(ram.cpu_asid, other) == slot
    away = load_acquire(ram.cpu_lazy, other) != 0 or load_acquire(ram.cpu_in_irq, other) != 0
    if loaded and not away:
        return LOADED
    return REACHED if load_acquire(ram.asid_gen, (other, slot)) >= load_acquire(ram.mm_tlb_gen, mm) else 0


@kernel
def shows(ram, mm, vpn, pfn, rights):
    """Does the PTE show the frame, with these rights?"""
    table = find_table(ram, ram.mm_pgd[mm], vpn)
    pte = ptep_get(ram, table, vpn & LEVEL_MASK) if table >= 0 else 0
    return pte & PTE_PRESENT != 0 and pte_pfn(pte) == pfn and pte & rights == rights


@kernel
def read_entry(ram, other, i, pfn, rights):
    """Read TLB entry `i` of a CPU: (tag, pfn, logical page, time of the fill, mm, why the CPU would use it
    though it is stale, 0 if it would not, whose flush it waits for, 0 nobody's). It is stale if its PTE does
    not show that frame with `rights`. EMPTY as the tag: it was not there, or is for another frame than `pfn`
    (-1: any).
    """
    switches = load_acquire(ram.cpu_switches, other)
    tag = load_acquire(ram.tlb_tag, (other, i))
    filled_ns = load_acquire(ram.tlb_filled_ns, (other, i))
    found = load_acquire(ram.tlb_value, (other, i)) >> VALUE_SHIFT
    if tag == EMPTY or (pfn >= 0 and found != pfn):
        return EMPTY, found, 0, 0, 0, 0, 0
    vpn, slot = tag >> CONTEXT_BITS, _slot_of(ram, other, tag & CONTEXT_MASK)
    mm = load_acquire(ram.asid_mm, (other, slot)) if slot >= 0 else -1
    why = _would_use(ram, other, slot, mm) if mm >= 0 else 0
    logical = load_acquire(ram.tlb_logical, (other, i))
    if logical == marked(ram):
        logical = load_acquire(ram.tlb_marked, (other, i)) >> 1
    if why != 0 and shows(ram, mm, vpn, found, rights):
        why = 0
    waits_for = batch_of(ram, other, found)  # after the PTE: who clears one says so before
    if waits_for == 0 and mm >= 0 and load_acquire(ram.mm_flush_pending, mm) > 0:
        waits_for = UNDER_WAY
    # the entry last of all: it was there after everything else was read, and was not flushed and filled anew
    same = load_acquire(ram.tlb_filled_ns, (other, i)) == filled_ns
    if load_acquire(ram.tlb_tag, (other, i)) != tag or not same:
        return EMPTY, found, 0, 0, 0, 0, 0
    if switches & 1 or load_acquire(ram.cpu_switches, other) != switches:
        why = 0
    return tag, found, logical, filled_ns, mm, why, waits_for


# --- frames -------------------------------------------------------------------------------------------------


@kernel
def _has_frame(ram, cpu, other, i, pfn, occasion):
    """Has a CPU's TLB entry `i` a translation to the frame? If the CPU would use it, that is reported."""
    tag, _, logical, filled_ns, mm, why, _ = read_entry(ram, other, i, pfn, 0)
    if why != 0 and mm == ram.cpu_loaded_mm[cpu] and address_is_mapped(ram, mm, tag >> CONTEXT_BITS) == 0:
        why = 0  # its process takes it
    if why != 0 and load_acquire(ram.tlb_tag, (other, i)) == tag:
        expose(ram, cpu, occasion, other, tag >> CONTEXT_BITS, pfn, logical, mm, filled_ns, i, why, -1)
    return tag != EMPTY


@generator
def fillers_of(ram, fillers):
    """Go through the CPUs that some bits stand for."""
    bit = 0
    while fillers != 0:
        if fillers & 1:
            other = bit
            while other < ram.nr_cpus:
                yield other
                other += FILLERS
        fillers >>= 1
        bit += 1


@generator
def entries_of(ram, other, page, pfn):
    """Go through the TLB entries of a CPU that seem to have the frame: those of the page's sets, or all if
    it may be any page. The second level first, since entries are copied from there and not back.
    """
    values, tags = row(ram.tlb_value, other), row(ram.tlb_tag, other)
    for base, sets, ways in (
        (ram.stlb_base, ram.stlb_sets, ram.stlb_ways),
        (ram.dtlb_base, ram.dtlb_sets, ram.dtlb_ways),
        (ram.store_base, ram.store_sets, ram.store_ways),
        (ram.itlb_base, ram.itlb_sets, ram.itlb_ways),
    ):
        first, count = base, sets * ways
        if page != ANY_PAGE:
            first, count = base + (page & (sets - 1)) * ways, ways
        for i in range(first, first + count):
            if values[i] >> VALUE_SHIFT == pfn and tags[i] != EMPTY:
                yield i


@apart
def look_at_frame(ram, cpu, pfn, occasion):
    """Look at the TLBs of all CPUs that have filled an entry with a frame; those without one are forgotten.

    The frame is the caller's alone: no right walk can fill another entry meanwhile.
    """
    first, others = load_acquire(ram.frame_fills, (pfn, FIRST)), load_acquire(ram.frame_fills, (pfn, OTHERS))
    fillers, page = fills_of(ram, pfn)
    left = 0
    for other in fillers_of(ram, fillers):
        if page == ANY_PAGE or has_page(ram, other, page):
            for i in entries_of(ram, other, page, pfn):
                if _has_frame(ram, cpu, other, i, pfn, occasion):
                    left |= bit_of(other)
    if left == 0 and first != 0:  # who fills one now although he must not has found FIRST taken: see OTHERS
        store_release(ram.frame_fills, (pfn, FIRST), 0)
    if others & ~left != 0:
        fetch_and(ram.frame_fills, (pfn, OTHERS), ~(others & ~left))
    return 0


@inlined
def frame_changes_hands(ram, cpu, pfn, occasion):
    """Something is about to happen to a frame that nobody maps."""
    if ram.states and was_filled(ram, pfn):
        look_at_frame(ram, cpu, pfn, occasion)


# --- what was found -----------------------------------------------------------------------------------------


shell_leave = later("shell_leave", 2)


@kernel
def expose(ram, cpu, occasion, other, vpn, pfn, logical, mm, filled_ns, entry, why, fresh):
    """Note an exposure, the first EXPOSURES_KEPT with their details. `fresh` is the frame that has the page
    now, -1 none.
    """
    place = draw_place(ram)
    n = fetch_add(ram.run_exposures, 0, 1)
    if n < EXPOSURES_KEPT:
        _note(ram, cpu, n, occasion, other, vpn, pfn, logical, mm, filled_ns, entry, why, fresh, place)
    if ram.exposures_limit > 0 and n + 1 >= ram.exposures_limit:
        store_release(ram.run_stop, 0, VIOLATED)
        shell_leave(ram, cpu, EXIT_STOPPED)  # at once, as for a violation


@kernel
def note_window(ram, cpu, occasion, other, vpn, pfn, logical, mm, filled_ns, entry, why, fresh):
    """Note one that vanilla has, too, and that is no fault of a design: the first WINDOWS_KEPT with their
    details.
    """
    place = draw_place(ram)
    n = fetch_add(ram.run_windows, 0, 1)
    if n < WINDOWS_KEPT:
        n += EXPOSURES_KEPT
        _note(ram, cpu, n, occasion, other, vpn, pfn, logical, mm, filled_ns, entry, why, fresh, place)


@kernel
def _note(ram, cpu, n, occasion, other, vpn, pfn, logical, mm, filled_ns, entry, why, fresh, place):
    """Keep the details of an exposure; its occasion last, which says that they are complete."""
    ram.exposure[n, 1], ram.exposure[n, 2], ram.exposure[n, 3] = other, vpn, pfn
    ram.exposure[n, 4] = (logical << VERSION_BITS) | load_acquire(ram.version, logical)
    ram.exposure[n, 5] = load_acquire(ram.content, pfn)
    ram.exposure[n, 6], ram.exposure[n, 7], ram.exposure[n, 8] = ram.cpu_clock[cpu], filled_ns, mm
    ram.exposure[n, 9], ram.exposure[n, 10], ram.exposure[n, 11] = place, ram.cpu_task[cpu], entry
    ram.exposure[n, 12], ram.exposure[n, 13], ram.exposure[n, 14] = cpu, why, fresh
    ram.exposure[n, 0] = occasion
