"""The hot loop: a CPU visits pages through its TLBs, as fast as compiled code can.

A visit stands for `count` accesses to one page by one instruction stream: one TLB lookup decides them all.
Per visit: the doorbell is read, the entry is found (first level, second level, or a walk that may fault), the
oracle judges, the clock moves. A fault that could be served ends the visit without a result and it begins
anew, doorbell and slice included, as the hardware restarts the instruction.
Counted as on the machine: `dtlb_load_misses` and its like are page walks, so a visit that faults counts two,
and so does a store through a clean entry (XXX: the hardware sets the dirty bit by an assist, which may not
count as a miss).
Numbers: see benchmarks/access.py, which runs the same algorithm in C beside it.
Left out: caches and prefetchers (a cost per line stands for them), out-of-order overlap of walks.
"""

from cpus.abi.numbers import LOAD, STORE
from cpus.atomics import address, load_acquire, store_release, unlikely, word_at
from cpus.compiled import inlined, kernel, later
from cpus.completion import look_for_completed_changes, marked
from cpus.declare import OURS, OWNER, PERF, Cost, Counter, Field, Struct
from cpus.exposed import note_fill
from cpus.exposed_pages import note_mm_fill
from cpus.incoherent import incoherent
from cpus.ipi import serve_interrupts
from cpus.lost_data import another_page, is_another, is_shared, shown_at, stored_to_by_two
from cpus.oracle import check_load, check_store, filled_for
from cpus.page_table import (
    LEVEL_MASK,
    PTE_DIRTY,
    PTE_PRESENT,
    PTE_WRITE,
    find_table,
    pte_pfn,
    ptep_get,
    use_entry,
)
from cpus.ram import WORD, row
from cpus.tlb import AGAIN, CONTEXT_BITS, EMPTY, VALUE_SHIFT, WAIT, find_way, first_level, oldest_way

FIELDS = (
    Struct(
        "nr_cpus",
        "clock",
        (Field("cpu_tenths", OWNER, "tenths of a ns of user accesses that are not in cpu_clock yet"),),
    ),
)

COUNTERS = (
    # accesses and misses of LOAD, STORE and IFETCH, in this order (ACCESSES_APART)
    Counter("dtlb_loads", PERF, "accesses by loads"),
    Counter("dtlb_load_misses", PERF, "page walks for a load"),
    Counter("dtlb_stores", PERF, "accesses by stores"),
    Counter("dtlb_store_misses", PERF, "page walks for a store"),
    Counter("itlb_loads", PERF, "accesses by instruction fetches"),
    Counter("itlb_load_misses", PERF, "page walks for an instruction fetch"),
    Counter("stlb_hits", PERF, "misses of the first level that the second served"),
    Counter("page_visits", OURS, "pages visited: one lookup for all accesses of a visit"),
)
COSTS = (
    # at least 1: while accesses take time, their counters cannot wrap before the clocks end
    Cost("access_tenths", "one access that hits L1 dTLB and cache", "tenths of a ns", least=1),
    Cost("line_dram_tenths", "streaming one 64-byte line from DRAM", "tenths of a ns"),
    Cost("line_cxl_tenths", "the same from the CXL node", "tenths of a ns"),
    Cost("stlb_hit", "an L1 TLB miss that hits the second level"),
    Cost("walk", "a page walk with its paging-structure caches warm"),
)

# bytes from the accesses of one kind to those of the next (LOAD, STORE, IFETCH): its misses lie between
ACCESSES_APART = 2 * WORD

page_fault = later("page_fault", 3)
LINES_PER_PAGE = 64
PERMISSION = PTE_WRITE | PTE_DIRTY  # what a store needs of an entry
# why the inner loop ended: no time, no entry, incoherent, all done (or a bell)
SLICE_OVER, MISS, BAD, VISITED = range(4)


@kernel
def _walk(ram, cpu, vpn, tag, kind, first, known):
    """Miss in all levels: walk, fault if need be, fill the second level's set at `first` (entry `known` if it
    is there).

    Returns the entry, WAIT or AGAIN.
    """
    if kind == LOAD:
        ram.dtlb_load_misses[cpu] += 1
    elif kind == STORE:
        ram.dtlb_store_misses[cpu] += 1
    else:
        ram.itlb_load_misses[cpu] += 1
    ram.cpu_clock[cpu] += ram.cost_walk
    mm = ram.cpu_loaded_mm[cpu]
    table = find_table(ram, ram.mm_pgd[mm], vpn)
    logical = change = 0
    while True:
        pte = use_entry(ram, table, vpn & LEVEL_MASK, kind == STORE)
        if pte < 0:
            # one of two constants: what any int64 may be costs the callers' hot path 10 %
            return WAIT if page_fault(ram, cpu, vpn, kind) == WAIT else AGAIN
        pfn = pte_pfn(pte)
        if ram.states:
            note_fill(ram, cpu, vpn, pfn)
            note_mm_fill(ram, cpu, mm)
        elif not ram.check:
            break
        word = load_acquire(ram.content, pfn)
        change = load_acquire(ram.mm_changes_begun, mm)  # after the PTE was read, see completion.py
        kept = shown_at(ram, table, vpn & LEVEL_MASK)
        # Still mapped after its content was read, and the fill noted? Then the content is this page's, and
        # we say that the fill happened now. (Else a frame that changed hands meanwhile would be remembered
        # under its new owner, and the bug missed.)
        now = ptep_get(ram, table, vpn)
        if now & PTE_PRESENT != 0 and pte_pfn(now) == pfn:
            logical = filled_for(ram, cpu, vpn, pfn, word)
            if ram.check and unlikely(is_another(ram, kept, word)):
                another_page(ram, cpu, mm, vpn, table, word)
            elif ram.check and kept != 0 and now & PTE_WRITE and unlikely(is_shared(ram, kept)):
                stored_to_by_two(ram, cpu, vpn, table)
            break
    i = known if known >= 0 else oldest_way(row(ram.tlb_age, cpu), first, ram.stlb_ways)
    tags, values = row(ram.tlb_tag, cpu), row(ram.tlb_value, cpu)
    logicals, filled, changes = (
        row(ram.tlb_logical, cpu),
        row(ram.tlb_filled_ns, cpu),
        row(ram.tlb_change, cpu),
    )
    now_ns = ram.cpu_clock[cpu]
    tags[i] = EMPTY  # others look: never an old tag with a new value (exposed.py)
    store_release(values, i, (pfn << VALUE_SHIFT) | (pte & PERMISSION))  # not before EMPTY
    logicals[i] = logical
    filled[i] = now_ns
    changes[i] = change
    store_release(tags, i, tag)
    return i


@inlined
def _find_in_second_level(ram, cpu, vpn, tag, kind):
    """Look up a page; returns the first entry of its set, and its entry or -1 (-2 - entry: there, without the
    right to store).
    """
    first = ram.stlb_base + (vpn & (ram.stlb_sets - 1)) * ram.stlb_ways
    i = find_way(row(ram.tlb_tag, cpu), first, ram.stlb_ways, tag)
    if kind == STORE and i >= 0 and ram.tlb_value[cpu, i] & PERMISSION != PERMISSION:
        return first, -2 - i
    return first, i


@inlined
def _fill_first_level(ram, cpu, tag, stamp, second, first, ways, known):
    """Copy the second level's entry `second` to the first level's set at `first` (entry `known` if it is
    there); returns the entry.
    """
    tags, values, ages = row(ram.tlb_tag, cpu), row(ram.tlb_value, cpu), row(ram.tlb_age, cpu)
    logicals, filled, changes = (
        row(ram.tlb_logical, cpu),
        row(ram.tlb_filled_ns, cpu),
        row(ram.tlb_change, cpu),
    )
    ages[second] = stamp
    i = known if known >= 0 else oldest_way(ages, first, ways)
    value, logical, filled_ns, change = values[second], logicals[second], filled[second], changes[second]
    tags[i] = EMPTY  # as in _walk
    store_release(values, i, value)
    if unlikely(logical == marked(ram)):
        ram.tlb_marked[cpu, i] = ram.tlb_marked[cpu, second]
    logicals[i] = logical
    filled[i] = filled_ns
    changes[i] = change
    store_release(tags, i, tag)
    return i


@kernel
def _put_time(ram, cpu, tenths, stamp):
    """Bring the shared words up to what the loop holds in registers."""
    ns = tenths // 10
    ram.cpu_clock[cpu] = ns
    ram.cpu_tenths[cpu] = tenths - 10 * ns
    ram.cpu_visit_stamp[cpu] = stamp


@inlined
def visit_pages(ram, cpu, kind, vpn, pages, count, done):
    """Visit pages vpn+done .. vpn+pages-1; returns how many are done when finished, the slice is over, or the
    task must wait.

    The return value is negative (-1 - done) when the task must wait for `task_wait_ns` (a page on its way
    from disk). The inner loop calls nothing, so that what it holds stays in registers; whatever needs a call
    ends it. Inlined, so that offsets and constants are loaded once for many rows.
    """
    tags, values, logicals, ages = (
        row(ram.tlb_tag, cpu),
        row(ram.tlb_value, cpu),
        row(ram.tlb_logical, cpu),
        row(ram.tlb_age, cpu),
    )
    base, sets, ways = first_level(ram, kind)
    lines = min(count, LINES_PER_PAGE)
    in_dram = count * ram.cost_access_tenths + lines * ram.cost_line_dram_tenths
    in_cxl = count * ram.cost_access_tenths + lines * ram.cost_line_cxl_tenths
    fast_end, check = ram.node_end[0], ram.check
    first_done = done
    # The clock, in tenths of a ns, and other words of this CPU live in registers; who may change or read them
    # is called between _put_time and a reload.
    tenths, slice_end = 10 * ram.cpu_clock[cpu] + ram.cpu_tenths[cpu], 10 * ram.cpu_slice_end[cpu]
    stamp = ram.cpu_visit_stamp[cpu]
    context = ram.cpu_context[cpu]
    i, waits = 0, False
    while done < pages:
        if unlikely(load_acquire(ram.cpu_bell, cpu) > 0):
            _put_time(ram, cpu, tenths, stamp)
            serve_interrupts(ram, cpu)
            tenths, slice_end = 10 * ram.cpu_clock[cpu] + ram.cpu_tenths[cpu], 10 * ram.cpu_slice_end[cpu]
            context = ram.cpu_context[cpu]
            if check:
                look_for_completed_changes(ram, cpu)
            if ram.cpu_live_count[cpu] > 0:
                break  # flushed: the caller visits the pages in use first
        why = SLICE_OVER
        page = first = pfn = logical = published = word = 0
        while tenths < slice_end:
            page = vpn + done
            stamp += 1
            first = base + (page & (sets - 1)) * ways
            i = find_way(tags, first, ways, (page << CONTEXT_BITS) | context)
            why = MISS
            if i < 0:
                break
            value = values[i]
            if kind == STORE and value & PERMISSION != PERMISSION:
                break
            ages[i] = stamp
            pfn = value >> VALUE_SHIFT
            why = BAD
            if check:
                logical = logicals[i]
                coherent, published, word = (
                    check_store(ram, pfn, logical) if kind == STORE else check_load(ram, pfn, logical)
                )
                if unlikely(not coherent):
                    break
            why = VISITED
            tenths += in_dram if pfn < fast_end else in_cxl
            done += 1
            if done >= pages or load_acquire(ram.cpu_bell, cpu) > 0:
                break
        if why == SLICE_OVER:
            break
        if why == MISS:
            tag = (page << CONTEXT_BITS) | context
            second_first, second = _find_in_second_level(ram, cpu, page, tag, kind)
            if second >= 0:
                ram.stlb_hits[cpu] += 1
                tenths += 10 * ram.cost_stlb_hit
            else:
                _put_time(ram, cpu, tenths, stamp)
                second = _walk(ram, cpu, page, tag, kind, second_first, -2 - second)
                tenths, slice_end = 10 * ram.cpu_clock[cpu] + ram.cpu_tenths[cpu], 10 * ram.cpu_slice_end[cpu]
                context = ram.cpu_context[cpu]
                if second == AGAIN:
                    continue
                if second == WAIT:
                    waits = True
                    break
            i = _fill_first_level(ram, cpu, tag, stamp, second, first, ways, i)
            ages[i] = stamp
            pfn, logical, coherent = values[i] >> VALUE_SHIFT, logicals[i], True
            if check:
                coherent, published, word = (
                    check_store(ram, pfn, logical) if kind == STORE else check_load(ram, pfn, logical)
                )
            why = MISS if coherent else BAD
        if why == BAD:
            _put_time(ram, cpu, tenths, stamp)  # of the report
            incoherent(ram, cpu, 2 * i + (kind == STORE), logical, published, word)
        if why != VISITED:
            tenths += in_dram if pfn < fast_end else in_cxl
            done += 1
    _put_time(ram, cpu, tenths, stamp)
    # dtlb_loads, dtlb_stores or itlb_loads: choosing by a branch costs rows of one page 8 % of their time
    accesses = word_at(address(ram.dtlb_loads, cpu) + kind * ACCESSES_APART)
    accesses[0] += (done - first_done) * count
    ram.page_visits[cpu] += done - first_done
    return -1 - done if waits else done
