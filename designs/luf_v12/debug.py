"""The debug feature (designs/luf/debug.py) over the bookkeeping of luf_v12: what its folds would not take, it
does not see either.

A batch is folded only if it is flush_required (fold_luf_batch). Records are made and noted with the same
folds, as in the patch; so with records=posted, whose mm and mapping never are, nothing is noted of them, and
the bug is invisible here.
handle_mm_fault flushes before it begins, too: its flush at the end would come after pte_mkwrite. That closes
v12's window between a PTE that is writable and the flush after it, for as long as debug is on.
"""

from allocator.vma import is_shared_file
from designs.design import hook
from designs.luf.debug import debug_kmap, debug_mkwrite, forget_noted, mark_page, note_file, note_mm
from designs.luf.records import of_file, of_key, of_mm
from designs.luf_v12.fields import v12_state
from designs.luf_v12.triggers import flush_for_fault


@hook("keep")
def v12_debug_free(ram, cpu, pfn, key, c, d):
    """free_frozen_pages and free_unref_folios with a key."""
    state = v12_state(ram)
    mark_page(ram, state, cpu, pfn, key, state.record_required[of_key(ram, key)] != 0)
    return 0


@hook("fault_begins")
def v12_debug_fault(ram, cpu, mm, vma, vpn, store):
    """Note what is required, then flush as the end of the fault will."""
    state = v12_state(ram)
    forget_noted(ram, cpu)
    if store and state.record_required[of_mm(ram, mm)]:
        note_mm(ram, state, cpu, mm)
    if store and is_shared_file(ram, vma) and state.record_required[of_file(ram.vma_object[vma])]:
        note_file(ram, state, cpu, ram.vma_object[vma])
    flush_for_fault(ram, state, cpu, mm, vma, store)
    return 0


@hook("write_begins")
def v12_debug_write(ram, cpu, object, page, c, d):
    state = v12_state(ram)
    forget_noted(ram, cpu)
    if state.record_required[of_file(object)]:
        note_file(ram, state, cpu, object)
    return 0


V12_DEBUG = (debug_kmap, debug_mkwrite, v12_debug_free, v12_debug_fault, v12_debug_write)
