"""Where a flush design decides: the names of its hooks in the text table, and what each is asked.

Every hook is `int64 hook(ram, cpu, a, b, c, d)`, called with the locks said here held. A design that has
nothing to say at a point leaves the default, which returns 0. The memory management never looks at a design's
own fields, and knows it only here.
"""

from cpus.compiled import Text, entry

# name -> (arguments, locks held, meaning of the result)
HOOKS = {
    "hook_init": ("-", "none: before the CPUs start, on CPU 0", "ignored"),
    "hook_pte_cleared": ("mm, vpn, old pte, object", "pte lock, object lock",
                         "1: read-only mapping whose flush may wait for the frame's next owner"),
    "hook_walk_done": ("pfn, all mappings were deferred read-only, unmapped completely, one was writable and flushed at once", "page lock",
                       "1: free it with the batch's key"),
    "hook_unmap_flush": ("-", "none, or page locks", "ignored: what was cleared is flushed, but for what a key stands for"),
    "hook_unmap_flush_dirty": ("1: a page is kept after all, so flush what stands for it too", "page lock",
                               "ignored: writable or dirty translations are flushed (before IO)"),
    "hook_batch_key": ("-", "none", "key of the pages whose unmap was deferred, 0: nothing pending"),
    "hook_page_freed": ("zone, pfn, key, order", "zone lock", "key to keep on the free block"),
    "hook_take_begin": ("zone or -1 (pcp), 1: rmqueue_buddy; 0: rmqueue_bulk, which Linux does under the pcp lock", "none",
                        "ignored: pages may be taken from here to HOOK_TAKE_DONE"),
    "hook_take_check": ("zone or -1 (pcp), pfn, key, order", "zone or pcp lock", "1: may be taken now"),
    "hook_take": ("zone or -1 (pcp), pfn, key, order", "zone or pcp lock", "ignored: the block is leaving the allocator"),
    "hook_take_done": ("-", "none", "ignored: what was taken may be used when this returns"),
    "hook_pend_first": ("zone", "zone lock",
                        "0: clean blocks first within an order; 1: keyed blocks first; 2: clean blocks of any order before keyed ones"),
    "hook_mapping_change": ("mm", "pte lock", "ignored: flush_tlb_batched_pending"),
    "hook_write_fault": ("mm, vma, vpn, object", "mmap_lock, no spin lock", "ignored: a writable mapping is about to be seen"),
    "hook_fault_done": ("mm, vma, vpn, 1 if it was a store", "mmap_lock, no spin lock", "ignored: a fault was handled, all see its PTE"),
    "hook_vma_done": ("mm, vma", "mmap_lock or the object's lock",
                      "ignored: PTEs of a VMA were torn down (tlb_end_vma), or one that no TLB may have was cleared (ptep_clear_flush)"),
    "hook_file_write": ("object, page", "page lock", "ignored: the page cache is about to change"),
    "hook_truncate": ("object, first page", "none, or page lock", "ignored: pages of the file are going, or have gone for a direct write"),
    "hook_truncated": ("object, first page", "page lock if one was cached", "ignored: pages of the file are gone (truncated, invalidated)"),
    "hook_mkclean": ("object, page", "page lock", "ignored"),
    "hook_context_switch": ("previous mm, next mm, task", "none", "ignored"),
    "hook_tick": ("-", "none", "ignored"),
    "hook_idle": ("-", "none", "ignored"),
    "hook_interrupt": ("sender", "in interrupt", "ignored: after the flush function ran here"),
    "hook_shootdown": ("mm or 0 (several), 1 if page tables were freed, CPUs to ask", "any; the mask of the CPUs is call_mask",
                       "0: interrupts, acked after the flush; 1: acked when the handler is entered; 2: a broadcast of the hardware"),
    "hook_flushed": ("mm", "any; in interrupt, or in switch_mm", "ignored: this CPU has just flushed everything of the mm that it loads"),
    "hook_young_cleared": ("mm, vpn, pfn", "pte lock, object lock", "ignored: reclaim has cleared an accessed bit, and has not flushed"),
    "hook_user_flush": ("mm, start, end, 1: munmap that frees no page table; 0: any other gather", "mmap_lock, the gather is open",
                        "0: flush now; else the pages of the gather are freed with this key, and nothing is flushed"),
    "hook_map": ("mm, start, end", "mmap_lock for writing", "ignored: addresses that were free are about to be used"),
    "hook_release": ("mm being left, 0", "none", "ignored: a kernel thread lets go of a borrowed mm"),
    "hook_keep": ("pfn, key", "none, or page locks", "1: the design keeps the frame, and frees it itself later"),
    "hook_kthread": ("-", "none", "1: more to do; 0: sleep until wake_kthread (a design with this hook has a kernel thread)"),
    "hook_kmap": ("pfn, KMAP_*, then mm and vpn or object and index (kmap.py)", "any: page lock, pte lock, or exclusive owner",
                  "ignored: the kernel is about to write to the frame"),
    "hook_mkwrite": ("pfn, MKWRITE_*, mm, vpn", "pte lock", "ignored: a PTE that maps the frame is about to become writable"),
    "hook_fault_begins": ("mm, vma, vpn, 1 if it is a store", "mmap_lock, no spin lock", "ignored: handle_mm_fault is about to begin"),
    "hook_write_begins": ("object, page", "page lock", "ignored: write(2) has its page, and will ask HOOK_FILE_WRITE"),
    "hook_pressure": ("node", "none, or mmap_lock and page locks", "ignored: no zone is above its low watermark (__alloc_pages_slowpath)"),
}  # fmt: skip

(HOOK_INIT, HOOK_PTE_CLEARED, HOOK_WALK_DONE, HOOK_UNMAP_FLUSH, HOOK_UNMAP_FLUSH_DIRTY, HOOK_BATCH_KEY, HOOK_PAGE_FREED,
 HOOK_TAKE_BEGIN, HOOK_TAKE_CHECK, HOOK_TAKE, HOOK_TAKE_DONE, HOOK_PEND_FIRST, HOOK_MAPPING_CHANGE, HOOK_WRITE_FAULT,
 HOOK_FAULT_DONE, HOOK_VMA_DONE, HOOK_FILE_WRITE, HOOK_TRUNCATE, HOOK_TRUNCATED, HOOK_MKCLEAN, HOOK_CONTEXT_SWITCH, HOOK_TICK,
 HOOK_IDLE, HOOK_INTERRUPT, HOOK_SHOOTDOWN, HOOK_FLUSHED, HOOK_YOUNG_CLEARED, HOOK_USER_FLUSH, HOOK_MAP, HOOK_RELEASE,
 HOOK_KEEP, HOOK_KTHREAD, HOOK_KMAP, HOOK_MKWRITE, HOOK_FAULT_BEGINS, HOOK_WRITE_BEGINS,
 HOOK_PRESSURE) = (Text(name) for name in HOOKS)  # fmt: skip


@entry(HOOK_INIT)
def nothing(ram, cpu, a, b, c, d):
    """The default of every hook: nothing to do, nothing to say."""
    return 0
