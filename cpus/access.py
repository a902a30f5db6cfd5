"""The hot loop: a CPU visits pages through its TLBs, as fast as compiled code can.

A visit stands for `count` accesses to one page by one instruction stream: one TLB lookup decides them all. Per visit: the
doorbell is read, the entry is found (first level, second level, or a walk that may fault), the oracle judges, the clock moves.
Numbers: see benchmarks/access.py, which runs the same algorithm in C beside it.
Left out: caches and prefetchers (a cost per line stands for them), out-of-order overlap of walks.
"""

from cpus.atomics import load_acquire
from cpus.compiled import call, kernel
from cpus.costs import ACCESS_TENTHS, LINE_CXL_TENTHS, LINE_DRAM_TENTHS, STLB_HIT, WALK
from cpus.ipi import serve_interrupts
from cpus.layout import COUNTER, TEXT
from cpus.oracle import VERSION_BITS, check_load, check_store
from cpus.page_table import PTE_DIRTY, PTE_PFN_SHIFT, PTE_PRESENT, PTE_WRITE, hardware_walk, read_pte
from cpus.ram import row
from cpus.tlb import CONTEXT_BITS, STORE, VALUE_SHIFT, find_way, first_level, oldest_way

PAGE_FAULT = TEXT["page_fault"]
LINES_PER_PAGE = 64
C_LOADS, C_LOAD_MISSES = COUNTER["dtlb_loads"], COUNTER["dtlb_load_misses"]
C_STLB_HITS, C_VISITS, C_USER_NS = COUNTER["stlb_hits"], COUNTER["page_visits"], COUNTER["user_ns"]
PERMISSION = PTE_WRITE | PTE_DIRTY


@kernel
def _install(ram, cpu, first, ways, tag, value, logical, filled):
    """Put an entry into one set, in place of the least recently used."""
    i = oldest_way(row(ram.tlb_age, cpu), first, ways)
    ram.tlb_tag[cpu, i] = tag
    ram.tlb_value[cpu, i] = value
    ram.tlb_logical[cpu, i] = logical
    ram.tlb_filled_ns[cpu, i] = filled
    return i


@kernel
def _walk_and_fill(ram, cpu, vpn, tag, kind):
    """Miss in all levels: walk, fault if need be, fill the second level; returns its entry, or -1 if the task must wait."""
    store = kind == STORE
    while True:
        ram.counter[cpu, C_LOAD_MISSES + 2 * kind] += 1
        ram.cpu_clock[cpu] += ram.cost[WALK]
        pgd = ram.mm_pgd[ram.cpu_loaded_mm[cpu]]
        pte = hardware_walk(ram, pgd, vpn, store)
        if pte < 0:
            if call(ram, PAGE_FAULT, cpu, vpn, kind, 0, 0) != 0:
                return -1
            tag = (vpn << CONTEXT_BITS) | ram.cpu_context[cpu]  # the fault may have flushed
            continue
        pfn = pte >> PTE_PFN_SHIFT
        logical = load_acquire(ram.content, pfn) >> VERSION_BITS
        again = read_pte(ram, pgd, vpn)
        if again & PTE_PRESENT == 0 or again >> PTE_PFN_SHIFT != pfn:
            continue  # unmapped while we looked: the frame's owner may have changed
        sets, ways = ram.stlb_sets, ram.stlb_ways
        first = ram.stlb_base + (vpn % sets) * ways
        stale = find_way(row(ram.tlb_tag, cpu), first, ways, tag)
        value = (pfn << VALUE_SHIFT) | (pte & PERMISSION)
        if stale < 0:
            return _install(ram, cpu, first, ways, tag, value, logical, ram.cpu_clock[cpu])
        ram.tlb_value[cpu, stale] = value  # same page, more rights (a first store)
        ram.tlb_logical[cpu, stale] = logical
        return stale


@kernel
def _first_level_miss(ram, cpu, vpn, tag, kind, age):
    """Find or make the first-level entry; returns it, or -1 if the task must wait for something."""
    sets, ways = ram.stlb_sets, ram.stlb_ways
    second = find_way(row(ram.tlb_tag, cpu), ram.stlb_base + (vpn % sets) * ways, ways, tag)
    if second >= 0 and (kind != STORE or ram.tlb_value[cpu, second] & PERMISSION == PERMISSION):
        ram.counter[cpu, C_STLB_HITS] += 1
        ram.cpu_clock[cpu] += ram.cost[STLB_HIT]
    else:
        second = _walk_and_fill(ram, cpu, vpn, tag, kind)
        if second < 0:
            return -1
    ram.tlb_age[cpu, second] = age
    base, sets, ways = first_level(ram, kind)
    first = base + (vpn % sets) * ways
    i = find_way(row(ram.tlb_tag, cpu), first, ways, ram.tlb_tag[cpu, second])
    if i < 0:
        i = oldest_way(row(ram.tlb_age, cpu), first, ways)
    ram.tlb_tag[cpu, i] = ram.tlb_tag[cpu, second]
    ram.tlb_value[cpu, i] = ram.tlb_value[cpu, second]
    ram.tlb_logical[cpu, i] = ram.tlb_logical[cpu, second]
    ram.tlb_filled_ns[cpu, i] = ram.tlb_filled_ns[cpu, second]
    return i


@kernel
def visit_pages(ram, cpu, kind, vpn, pages, count, done):
    """Visit pages vpn+done .. vpn+pages-1; returns how many are done when finished, the slice is over, or the task must wait.

    The return value is negative (-1 - done) when the task must wait for `task_wait_ns` (a page on its way from disk).
    """
    tags, values, logicals, ages = row(ram.tlb_tag, cpu), row(ram.tlb_value, cpu), row(ram.tlb_logical, cpu), row(ram.tlb_age, cpu)
    base, sets, ways = first_level(ram, kind)
    lines = min(count, LINES_PER_PAGE)
    in_dram = (count * ram.cost[ACCESS_TENTHS] + lines * ram.cost[LINE_DRAM_TENTHS]) // 10
    in_cxl = (count * ram.cost[ACCESS_TENTHS] + lines * ram.cost[LINE_CXL_TENTHS]) // 10
    fast_end = ram.zone_end[0]
    check = ram.check
    first_done = done
    age = ram.cpu_visit_stamp[cpu]
    waits = False
    while done < pages:
        if ram.cpu_bell[cpu] > 0:
            serve_interrupts(ram, cpu)
        if ram.cpu_clock[cpu] >= ram.cpu_slice_end[cpu]:
            break
        page = vpn + done
        age += 1
        tag = (page << CONTEXT_BITS) | ram.cpu_context[cpu]
        i = find_way(tags, base + (page % sets) * ways, ways, tag)
        if i < 0 or (kind == STORE and values[i] & PERMISSION != PERMISSION):
            i = _first_level_miss(ram, cpu, page, tag, kind, age)
            if i < 0:
                waits = True
                break
        ages[i] = age
        pfn = values[i] >> VALUE_SHIFT
        if check:
            if kind == STORE:
                check_store(ram, cpu, page, pfn, logicals[i], i)
            else:
                check_load(ram, cpu, page, pfn, logicals[i], i)
        ram.cpu_clock[cpu] += in_dram if pfn < fast_end else in_cxl
        done += 1
    ram.cpu_visit_stamp[cpu] = age
    ram.counter[cpu, C_LOADS + 2 * kind] += (done - first_done) * count
    ram.counter[cpu, C_VISITS] += done - first_done
    return -1 - done if waits else done

