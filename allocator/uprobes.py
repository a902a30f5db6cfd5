"""Breakpoints in the code of a file, for whoever maps it (kernel/events/uprobes.c: register_for_each_vma,
uprobe_write_opcode).

Every process that maps the page executable and private gets a copy of it, with the breakpoint, in place of
the file's page: it is faulted in, copied, and replaced under mmap_lock held for writing, page lock and PTE
lock (__replace_page). The old translation is flushed everywhere before the new one can be seen
(ptep_clear_flush), so when the call returns, no CPU executes the old code. Taken away again, the copy goes
and the next fetch faults the file's page in; if that is not cached, another copy without the breakpoint. Left
out: the trap itself and what is done then, mappings made while a breakpoint is there (uprobe_mmap), reference
counts of probes.
"""

from allocator.copy_on_write import new_anonymous_page
from allocator.flush_sites import SITE_USER
from allocator.kmap import KMAP_COPY
from allocator.lru import drop_page, lru_add, unlock_and_drop
from allocator.memory import fault_in_vma
from allocator.outcome import NEXT, SLEEP
from allocator.page import lock_page, try_get_page
from allocator.page_cache import OBJECT_ANON, find_page
from allocator.page_list import NONE
from allocator.rmap import address_in, lock_pte, mod_rss, record_unmap, remove_rmap, set_pte, unlock_pte
from allocator.tlb_flush import flush_tlb_page
from allocator.vma import VM_EXEC, VM_SHARED, VM_WRITE, lock_object, next_vma_of, unlock_object
from cpus.abi.numbers import IFETCH
from cpus.abi.row_kinds import REGISTER
from cpus.atomics import exchange, load_acquire
from cpus.compiled import apart, kernel
from cpus.completion import UNMAPPED, change_begins
from cpus.exposed_changes import call_returns
from cpus.locks import mmap_write_lock, mmap_write_unlock
from cpus.lost_data import shows_copy, shows_no_more
from cpus.page_table import LEVEL_MASK, PTE_ACCESSED, PTE_PRESENT, find_table, pte_pfn, ptep_get
from cpus.tlb import WAIT


@kernel
def _next_mm(ram, cpu, object, last):
    """The mm with the smallest number above `last` that maps a file, 0 if there is none (build_map_info)."""
    found = 0
    lock_object(ram, cpu, object)
    vma = ram.object_vmas[object] - 1
    while vma >= 0:
        mm = ram.vma_mm[vma]
        if mm > last and (found == 0 or mm < found):
            found = mm
        vma = next_vma_of(ram, object, vma)
    unlock_object(ram, cpu, object)
    return found


@kernel
def _code_vma(ram, mm, object, index, after):
    """The first VMA of an mm, from index `after` on, that shows page `index` of a file as private code
    (valid_vma); its index or -1.
    """
    for at in range(after, ram.mm_nr_vmas[mm]):
        vma = ram.mm_vma[mm, at]
        code = ram.vma_flags[vma] & (VM_EXEC | VM_WRITE | VM_SHARED) == VM_EXEC
        if (
            code
            and ram.vma_object[vma] == object
            and ram.vma_anon[vma] >= 0
            and address_in(ram, vma, index) >= 0
        ):
            return at
    return NONE


@kernel
def _mapped_frame(ram, mm, vpn):
    """The frame that a present PTE shows, -1 if there is none."""
    table = find_table(ram, ram.mm_pgd[mm], vpn)
    pte = ptep_get(ram, table, vpn) if table >= 0 else 0
    return pte_pfn(pte) if pte & PTE_PRESENT else NONE


@kernel
def hold_mapped(ram, cpu, mm, vpn, pfn):
    """Take a reference on a page that a PTE was seen to show; False if it shows it no more
    (gup_fast_pte_range).

    mmap_lock alone does not keep the page: reclaim may have taken it by now, or migration have frozen it.
    """
    if not try_get_page(ram, pfn):
        return False
    if _mapped_frame(ram, mm, vpn) == pfn:
        return True
    drop_page(ram, cpu, pfn)
    return False


@kernel
def _has_copy(ram, pfn):
    object = ram.page_object[pfn] - 1
    # none: truncated meanwhile, and mapped no more
    return object >= 0 and ram.object_kind[object] == OBJECT_ANON


@kernel
def _replace_page(ram, cpu, mm, vpn, old, fresh):
    """Put `fresh` (-1: nothing) in the place of page `old`, which is locked; False if it is mapped no more
    (__replace_page).
    """
    table, index = find_table(ram, ram.mm_pgd[mm], vpn), vpn & LEVEL_MASK
    lock_pte(ram, cpu, table)
    pte = load_acquire(ram.frame_word, (table, index))
    same = pte & PTE_PRESENT != 0 and pte_pfn(pte) == old
    if same:
        change = change_begins(ram, mm)
        record_unmap(ram, cpu, mm, vpn, exchange(ram.frame_word, (table, index), 0))
        flush_tlb_page(ram, cpu, mm, vpn)
        call_returns(ram, cpu, mm, change, vpn, vpn + 1, UNMAPPED)
        if fresh != NONE:
            shows_copy(ram, cpu, vpn, table, fresh, old)
            lru_add(ram, cpu, fresh)
            set_pte(ram, cpu, mm, vpn, table, fresh, PTE_ACCESSED)
        else:
            shows_no_more(ram, vpn, table)
        remove_rmap(ram, cpu, old)
        mod_rss(ram, cpu, mm, -1)
    unlock_pte(ram, cpu, table)
    return same


@kernel
def _write_opcode(ram, cpu, mm, vma, vpn, kind):
    """Change the code at one address (uprobe_write_opcode); mmap_lock held for writing. 0 done, 1 the task
    must wait until task_wait_ns.
    """
    while True:
        old = _mapped_frame(ram, mm, vpn)
        if old == NONE:
            if fault_in_vma(ram, cpu, mm, vma, vpn, IFETCH) == WAIT:
                return SLEEP
            continue
        if not hold_mapped(ram, cpu, mm, vpn, old):
            continue
        if _has_copy(ram, old) == (kind == REGISTER):
            drop_page(ram, cpu, old)
            return NEXT  # the breakpoint is as it is wanted already
        fresh = NONE
        if kind == REGISTER or not _is_cached(ram, cpu, vma, vpn):
            fresh = new_anonymous_page(ram, cpu, vma, vpn, KMAP_COPY)
            ram.cpu_clock[cpu] += ram.cost_page_copy
        lock_page(ram, cpu, old)
        done = _replace_page(ram, cpu, mm, vpn, old, fresh)
        unlock_and_drop(ram, cpu, old)  # ours
        if done:
            drop_page(ram, cpu, old)  # the PTE's
            return NEXT
        if fresh != NONE:
            drop_page(ram, cpu, fresh)


@kernel
def _is_cached(ram, cpu, vma, vpn):
    """Is the file's own page there to be mapped again?"""
    pfn = find_page(ram, cpu, ram.vma_object[vma], vpn - ram.vma_start[vma] + ram.vma_pgoff[vma])
    if pfn == NONE:
        return False
    drop_page(ram, cpu, pfn)
    return True


@apart
def uprobe_write(ram, cpu, task, object, index, kind):
    """Set (kind 1) or take away (0) a breakpoint in page `index` of a file, one process after another;
    SLEEP: come again at task_wait_ns.

    `task_step` is the last mm that is done.
    """
    site = ram.cpu_site[cpu]
    ram.cpu_site[cpu] = SITE_USER
    result = NEXT
    mm = _next_mm(ram, cpu, object, ram.task_step[task])
    while mm != 0 and result == NEXT:
        mmap_write_lock(ram, cpu, mm)
        at = _code_vma(ram, mm, object, index, 0)
        while at != NONE and result == NEXT:
            vma = ram.mm_vma[mm, at]
            result = _write_opcode(ram, cpu, mm, vma, address_in(ram, vma, index), kind)
            at = _code_vma(ram, mm, object, index, at + 1)
        mmap_write_unlock(ram, cpu, mm)
        if result == NEXT:
            ram.task_step[task] = mm
            mm = _next_mm(ram, cpu, object, mm)
    if result == NEXT:
        ram.task_step[task] = 0
    ram.cpu_site[cpu] = site
    return result


@apart
def uprobe(ram, cpu, task, row):
    """Execute a UPROBE row: page by page of the file that its region shows."""
    if ram.task_visit[task] == 0 and ram.task_step[task] == 0:
        ram.cpu_clock[cpu] += ram.cost_syscall
    process, region = ram.task_process[task], ram.row_region[row]
    first = ram.proc_offset[process, region] + ram.row_page[row]
    while ram.task_visit[task] < ram.row_pages[row]:
        if (
            uprobe_write(
                ram,
                cpu,
                task,
                ram.proc_file[process, region],
                first + ram.task_visit[task],
                ram.row_kind[row],
            )
            == SLEEP
        ):
            return SLEEP
        ram.task_visit[task] += 1
    ram.task_visit[task] = 0
    return NEXT
