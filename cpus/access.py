"""The hot loop: a CPU visits pages through its TLBs, as fast as compiled code can.

A visit stands for `count` accesses to one page by one instruction stream: one TLB lookup decides them all. Per visit: the
doorbell is read, the entry is found (first level, second level, or a walk that may fault), the oracle judges, the clock moves.
A fault that could be served ends the visit without a result and it begins anew, doorbell and slice included, as the
hardware restarts the instruction.
Counted as on the machine: `dtlb_load_misses` and its like are page walks, so a visit that faults counts two, and so does a
store through a clean entry (XXX: the hardware sets the dirty bit by an assist, which may not count as a miss).
Numbers: see benchmarks/access.py, which runs the same algorithm in C beside it.
Left out: caches and prefetchers (a cost per line stands for them), out-of-order overlap of walks.
"""

from cpus.atomics import load_acquire, unlikely
from cpus.compiled import call, kernel
from cpus.completion import look_for_completed_changes
from cpus.costs import ACCESS_TENTHS, LINE_CXL_TENTHS, LINE_DRAM_TENTHS, STLB_HIT, WALK
from cpus.ipi import serve_interrupts
from cpus.layout import COUNTER, TEXT
from cpus.oracle import check_load, check_store, filled_for
from cpus.page_table import LEVEL_MASK, PTE_DIRTY, PTE_PFN_SHIFT, PTE_PRESENT, PTE_WRITE, find_table, use_entry
from cpus.ram import row
from cpus.tlb import CONTEXT_BITS, STORE, VALUE_SHIFT, find_way, first_level, oldest_way

PAGE_FAULT = TEXT["page_fault"]
LINES_PER_PAGE = 64
C_LOADS, C_LOAD_MISSES = COUNTER["dtlb_loads"], COUNTER["dtlb_load_misses"]  # then stores, then fetches, two apart
C_STLB_HITS, C_VISITS = COUNTER["stlb_hits"], COUNTER["page_visits"]
PERMISSION = PTE_WRITE | PTE_DIRTY  # what a store needs of an entry
WAIT, AGAIN = -1, -2  # instead of an entry: the task must wait; the fault is served, begin anew


@kernel
def _walk(ram, cpu, vpn, tag, kind, first, known):
    """Miss in all levels: walk, fault if need be, fill the second level's set at `first` (entry `known` if it is there).

    Returns the entry, WAIT or AGAIN.
    """
    ram.counter[cpu, C_LOAD_MISSES + 2 * kind] += 1
    ram.cpu_clock[cpu] += ram.cost[WALK]
    mm = ram.cpu_loaded_mm[cpu]
    table = find_table(ram, ram.mm_pgd[mm], vpn)
    logical = change = 0
    while True:
        pte = use_entry(ram, table, vpn & LEVEL_MASK, kind == STORE)
        if pte < 0:
            return WAIT if call(ram, PAGE_FAULT, cpu, vpn, kind, 0, 0) != 0 else AGAIN
        pfn = pte >> PTE_PFN_SHIFT
        if not ram.check:
            break
        word = load_acquire(ram.content, pfn)
        change = load_acquire(ram.mm_changes_begun, mm)  # after the PTE was read, see completion.py
        # Still mapped after its content was read? Then the content is this page's, and we say that the fill happened now.
        # (Else a frame that changed hands meanwhile would be remembered under its new owner, and the bug missed.)
        now = load_acquire(ram.frame_word, (table, vpn & LEVEL_MASK))
        if now & PTE_PRESENT != 0 and now >> PTE_PFN_SHIFT == pfn:
            logical = filled_for(ram, cpu, vpn, pfn, word)
            break
    i = known if known >= 0 else oldest_way(row(ram.tlb_age, cpu), first, ram.stlb_ways)
    ram.tlb_tag[cpu, i] = tag
    ram.tlb_value[cpu, i] = (pfn << VALUE_SHIFT) | (pte & PERMISSION)
    ram.tlb_logical[cpu, i] = logical
    ram.tlb_filled_ns[cpu, i] = ram.cpu_clock[cpu]
    ram.tlb_change[cpu, i] = change
    return i


@kernel
def _first_level_miss(ram, cpu, vpn, tag, kind, stamp, first, ways, known):
    """Fill the first level's set at `first` (entry `known` if it is there, without the right to store) from the second.

    Returns the entry, WAIT or AGAIN.
    """
    tags, values, ages = row(ram.tlb_tag, cpu), row(ram.tlb_value, cpu), row(ram.tlb_age, cpu)
    logicals, filled, changes = row(ram.tlb_logical, cpu), row(ram.tlb_filled_ns, cpu), row(ram.tlb_change, cpu)
    second_ways = ram.stlb_ways
    second_first = ram.stlb_base + (vpn & (ram.stlb_sets - 1)) * second_ways
    second = find_way(tags, second_first, second_ways, tag)
    if second >= 0 and (kind != STORE or values[second] & PERMISSION == PERMISSION):
        ram.counter[cpu, C_STLB_HITS] += 1
        ram.cpu_clock[cpu] += ram.cost[STLB_HIT]
    else:
        second = _walk(ram, cpu, vpn, tag, kind, second_first, second)
        if second < 0:
            return second
    ages[second] = stamp
    i = known if known >= 0 else oldest_way(ages, first, ways)
    tags[i] = tag
    values[i] = values[second]
    logicals[i] = logicals[second]
    filled[i] = filled[second]
    ram.tlb_marked[cpu, i] = ram.tlb_marked[cpu, second]
    changes[i] = changes[second]
    return i


@kernel
def _put_time(ram, cpu, tenths, stamp):
    """Bring the shared words up to what the loop holds in registers."""
    ram.cpu_clock[cpu] = tenths // 10
    ram.cpu_tenths[cpu] = tenths % 10
    ram.cpu_visit_stamp[cpu] = stamp


@kernel
def visit_pages(ram, cpu, kind, vpn, pages, count, done):
    """Visit pages vpn+done .. vpn+pages-1; returns how many are done when finished, the slice is over, or the task must wait.

    The return value is negative (-1 - done) when the task must wait for `task_wait_ns` (a page on its way from disk).
    """
    tags, values, logicals, ages = row(ram.tlb_tag, cpu), row(ram.tlb_value, cpu), row(ram.tlb_logical, cpu), row(ram.tlb_age, cpu)
    base, sets, ways = first_level(ram, kind)
    lines = min(count, LINES_PER_PAGE)
    in_dram = count * ram.cost[ACCESS_TENTHS] + lines * ram.cost[LINE_DRAM_TENTHS]
    more_in_cxl = lines * (ram.cost[LINE_CXL_TENTHS] - ram.cost[LINE_DRAM_TENTHS])
    fast_end = ram.node_end[0]
    check = ram.check
    first_done = done
    # The clock, in tenths of a ns, and other words of this CPU live in registers; who may change or read them is called
    # between _put_time and a reload.
    tenths, slice_end = 10 * ram.cpu_clock[cpu] + ram.cpu_tenths[cpu], 10 * ram.cpu_slice_end[cpu]
    stamp = ram.cpu_visit_stamp[cpu]
    context = ram.cpu_context[cpu]
    i = 0
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
        if tenths >= slice_end:
            break
        page = vpn + done
        stamp += 1
        tag = (page << CONTEXT_BITS) | context
        first = base + (page & (sets - 1)) * ways
        i = find_way(tags, first, ways, tag)
        if i < 0 or (kind == STORE and values[i] & PERMISSION != PERMISSION):
            _put_time(ram, cpu, tenths, stamp)
            i = _first_level_miss(ram, cpu, page, tag, kind, stamp, first, ways, i)
            tenths, slice_end = 10 * ram.cpu_clock[cpu] + ram.cpu_tenths[cpu], 10 * ram.cpu_slice_end[cpu]
            context = ram.cpu_context[cpu]
            if i == AGAIN:
                continue
            if i == WAIT:
                break
        ages[i] = stamp
        pfn = values[i] >> VALUE_SHIFT
        if check:
            if kind == STORE:
                check_store(ram, cpu, page, pfn, logicals[i], i)
            else:
                check_load(ram, cpu, page, pfn, logicals[i], i)
        tenths += in_dram
        if pfn >= fast_end:
            tenths += more_in_cxl
        done += 1
    _put_time(ram, cpu, tenths, stamp)
    ram.counter[cpu, C_LOADS + 2 * kind] += (done - first_done) * count
    ram.counter[cpu, C_VISITS] += done - first_done
    return -1 - done if i == WAIT else done
