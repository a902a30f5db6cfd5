"""What else flushes in LUF v12 as posted (patches 15, 16, 19, 20)."""

from allocator.flush_sites import SITE_FILE
from allocator.tlb_flush import flush_tlb_mm
from allocator.vma import VM_SHARED, VM_WRITE, is_shared_file
from cpus.compiled import kernel
from cpus.cpumask import cpumask_copy
from designs.design import hook, hooks
from designs.linux import note_flushed, unflushed
from designs.luf.records import of_file, of_mm
from designs.luf.ugen import mark_done, new_luf_ugen
from designs.luf_v12.batches import luf_flush_record
from designs.luf_v12.fields import v12_state


@hook("mapping_change")
def v12_mapping_change(ram, cpu, mm, b, c, d):
    """flush_tlb_batched_pending, with a stamp before it and the mm's CPUs marked after it."""
    state = v12_state(ram)
    batched = unflushed(ram, mm)
    if batched != 0:
        ram.pending_completed[cpu] += 1
        ugen = new_luf_ugen(state)
        flush_tlb_mm(ram, cpu, mm)
        cpumask_copy(ram.tmp_mask, cpu, ram.mm_cpumask, mm)
        mark_done(ram, state, cpu, ram.tmp_mask, cpu, ugen)
        note_flushed(ram, mm, batched)
    return 0


@kernel
def flush_for_fault(ram, state, cpu, mm, vma, store):
    """What handle_mm_fault flushes: for VM_WRITE, VM_MAYWRITE, or a write the mm, and the file if it is
    shared.
    """
    flags = ram.vma_flags[vma]
    if store or flags & VM_WRITE or flags & VM_SHARED == 0:
        luf_flush_record(ram, state, cpu, of_mm(ram, mm))
        if is_shared_file(ram, vma):
            luf_flush_record(ram, state, cpu, of_file(ram.vma_object[vma]))


@hook("fault_done")
def v12_fault_done(ram, cpu, mm, vma, vpn, store):
    """The end of handle_mm_fault, after the new PTE is there for all."""
    flush_for_fault(ram, v12_state(ram), cpu, mm, vma, store)
    return 0


@hook("vma_done")
def v12_vma_done(ram, cpu, mm, vma, c, d):
    """tlb_end_vma: luf_flush_vma."""
    state = v12_state(ram)
    if is_shared_file(ram, vma):
        luf_flush_record(ram, state, cpu, of_file(ram.vma_object[vma]))
    luf_flush_record(ram, state, cpu, of_mm(ram, mm))
    return 0


@hook("release")
def v12_release(ram, cpu, mm, b, c, d):
    """finish_task_switch: the mm that a kernel thread had borrowed."""
    luf_flush_record(ram, v12_state(ram), cpu, of_mm(ram, mm))
    return 0


@hooks("file_write", "truncated", "mkclean")
def v12_file_changes(ram, cpu, object, page, c, d):
    """mapping_write_begin, before the bytes are copied; truncate_inode_folio and its kin, and
    mapping_try_invalidate, at their end; folio_mkclean, after the walk.
    """
    site = ram.cpu_site[cpu]
    ram.cpu_site[cpu] = SITE_FILE
    luf_flush_record(ram, v12_state(ram), cpu, of_file(object))
    ram.cpu_site[cpu] = site
    return 0
