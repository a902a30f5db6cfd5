"""Every word that emulated CPUs share: where it lives, who writes it, who reads it, and the rule that
protects it.

This is the machine's memory map, the only place where shared fields are declared. Rules are written in xv6's
manner:
  owner     only the CPU of that index reads or writes it (others: after the run, or for a dump)
  config    written before the CPUs start, read-only then
  any, add  any CPU, by atomic read-modify-write (named operation)
  X held    only while holding lock X
Counts are in pages or events, times in virtual ns, unless said otherwise; array sizes are names of `Sizes`.
"""

from __future__ import annotations

from dataclasses import dataclass

from cpus.abi.numbers import LEASES_MAX

MASK_BITS = 32  # CPUs per word of a cpumask: 32, so that a word is never negative
NR_ASIDS = 6  # TLB_NR_DYN_ASIDS (arch/x86/mm/tlb.c)
NR_LRU = 5  # inactive anon, active anon, inactive file, active file, unevictable (mmzone.h: enum lru_list)
NR_ORDERS = 11  # MAX_PAGE_ORDER + 1
FOLIO_BATCH = 31  # PAGEVEC_SIZE in 6.12
MAX_VMAS = 256  # per mm
MAX_MARKS = 4096  # evaluations of a process whose times are kept
MAX_REGIONS = 64  # per process of a workload
EVENT_WORDS = 8
EVENT_RING = 131072  # events kept per CPU (8 MiB, touched only as far as used)
VIOLATION_WORDS = 12
TRACES_FIRST, TRACES_LAST, TRACE_WORDS = 1000, 4000, 24  # lines of `trace` kept per CPU (trace.py)
GATHER_PAGES = 9690  # 19 batches of 510 (mm_types.h: MAX_GATHER_BATCH_COUNT, MAX_GATHER_BATCH)
GATHER_TABLES = 8192  # page tables that one gather may free: as many as map 16 GiB
LIVE_PAGES = 32  # pages in use noted at a flush: the 16 + 8 of a recorded visit, and some
VIOLATIONS_KEPT = 64
LUFD_KEPT, LUFD_WORDS = 16, 16  # findings of LUF's debug feature with their details (designs/luf/debug.py)
CHANGES_KEPT, CHANGE_WORDS = 256, 4  # completed changes of mappings that an mm remembers (completion.py)
WORK_PARTS, WORK_PAGES = 6, 512  # lists of work_list; 512: NR_MAX_BATCHED_MIGRATION, and the PTEs of a table
# tlb:tlb_flush: reasons (tlb_flush.py), pages 0..34, and one column for "all"
TRACE_REASONS, TRACE_PAGES = 5, 36
NR_SITES = 12
TIME_PIECES = 512  # in which a run is divided to count when shootdowns were made; a power of two
PIN_PAGES = 32  # pages of a task that a device writes into, or reads, at a time
DESIGN_SLOTS = 48  # header words pairs reserved for a design's own fields
HEADER_WORDS = 2048


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many there are of each thing; fixed for the life of a machine."""

    nr_cpus: int
    nr_nodes: int
    nr_zones: int
    nr_frames: int
    nr_mms: int
    nr_tasks: int
    nr_vmas: int
    nr_objects: int
    nr_cache_slots: int
    nr_logical: int
    nr_rows: int
    nr_sections: int
    nr_chunks: int
    tlb_entries: int
    series_length: int
    nr_anon_logical: int = 1
    nr_flags: int = 1
    nr_snapshots: int = 1
    nr_lufd_frames: int = 1  # all of them if LUF is debugged
    one: int = 1

    @property
    def mask_words(self) -> int:
        return -(-self.nr_cpus // MASK_BITS)

    @property
    def nr_scans(self) -> int:
        """One scan_control for each CPU (direct reclaim), behind them one for each node (kswapd)."""
        return self.nr_cpus + self.nr_nodes


@dataclass(frozen=True, slots=True)
class Member:
    name: str
    rule: str
    new_line: bool = False  # starts a cache line of its own, away from words that others write
    dtype: str = "int64"


@dataclass(frozen=True, slots=True)
class Struct:
    """An array of structs: members of one element lie together."""

    count: str
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A one- or two-dimensional array of one dtype; sizes are numbers or names of `Sizes`."""

    name: str
    rule: str
    rows: str | int
    columns: str | int | None = None
    dtype: str = "int64"


def _m(name: str, rule: str, new_line: bool = False, dtype: str = "int64") -> Member:
    return Member(name, rule, new_line, dtype)


CONSTANTS = (
    *(f for f in Sizes.__slots__ if f != "one"), "mask_words",
    "nr_leases", "controlled", "slice_ns", "check", "strict_ipi", "pcid", "nr_asids",
    "dtlb_sets", "dtlb_ways", "dtlb_base", "store_sets", "store_ways", "store_base", "itlb_sets", "itlb_ways", "itlb_base",
    "stlb_sets", "stlb_ways", "stlb_base",
    "flush_ceiling", "readahead_pages", "fault_around_pages", "numa_balancing", "swappiness", "promote_enough",
    "user_tasks", "nr_processes", "scan_pages", "scan_period_ns", "scan_period_max_ns", "scan_delay_ns", "hot_threshold_ns",
    "promote_limit", "lock_spins", "wait_bound_ms", "exact_rows", "zero_page", "zero_logical", "first_anon_logical", "violations_limit",
    "pend_apart", "series_ns", "events_on", "init_on_free", "kasan_poison", "lufd", "host_cores", "host_turn_ns", "base_slice_ns",
    "zmq_send", "zmq_recv", "zmq_getsockopt", "nr_counters",
)  # fmt: skip

LAYOUT: tuple[Struct | Table, ...] = (
    Struct("one", (
        _m("run_stop", "supervisor or any CPU sets, once; all read: 0 run, 1 finished, 2 interrupted, 3 panic, 4 violation"),
        _m("run_ready", "any, add: CPUs that are ready to start"),
        _m("run_tasks_left", "any, add: user threads that have not finished", True),
        _m("run_tokens", "any, add: evaluations finished, all processes"), _m("run_violations", "any, add"),
        _m("run_event_seq", "any, add: total order of events", True),
        _m("run_trace_seq", "any, add: total order of trace lines"),
        _m("run_debugger", "any sets 1: somebody looks into a CPU with pdb, and nothing moves meanwhile"),
        _m("run_lease_lock", "spin word of the lease table; held for a scan of the CPUs at most", True),
        _m("run_lease_free", "run_lease_lock held: bit of each lease that nobody holds"),
        _m("run_random", "run_lease_lock held: state of the schedule's random stream (controlled mode)"),
        _m("run_handovers", "run_lease_lock held"),
        _m("run_schedule_hash", "run_lease_lock held: hash of the sequence of CPUs that got the lease (controlled mode)"),
        _m("run_disk_free_ns", "any, compare-exchange: when the disk has done what is queued", True),
        _m("run_next_anon", "any, add: rotor over the anonymous logical pages", True),
        _m("run_next_task_cpu", "any, add: rotor for placing new tasks"),
        _m("run_panic", "any, compare-exchange 0 -> cpu + 1: who stopped the run"),
        _m("run_panic_code", "the CPU in run_panic"), _m("run_panic_a", "same"), _m("run_panic_b", "same"),
        _m("run_series_next_ns", "any, compare-exchange: virtual time of the next sample"),
        _m("run_series_count", "winner of run_series_next_ns"),
    )),
    Struct("nr_cpus", (
        _m("cpu_bell", "any adds 1 BEFORE it sends a message; owner subtracts 1 per message received", True),
        _m("cpu_queue", "any, compare-exchange push; owner, exchange: call_single_queue, node + 1 of the newest request"),
        _m("cpu_acks", "owner sets before it queues; any subtracts 1 after executing: requests not yet acked", True),
        _m("cpu_state", "run_lease_lock held to write: OFF, RUNNING, READY, BLOCKED", True),
        _m("cpu_wake", "run_lease_lock held: a wake-up that came while not blocked"),
        _m("cpu_ready_ns", "run_lease_lock held: its virtual clock while it has no lease"),
        _m("cpu_order_ns", "run_lease_lock held: leases go to the READY CPU where this is smallest"),
        _m("cpu_wait_kind", "run_lease_lock held: what it waits for (WAIT_*)"),
        _m("cpu_wait_object", "run_lease_lock held: number of the lock, page, barrier"),
        _m("cpu_lease", "run_lease_lock held: number of the lease it holds"),
        _m("cpu_host_core", "whoever grants it a lease: host core it is pinned to, + 1"),
        _m("cpu_pid", "owner at start: process id (granters and supervisor read)"),
        _m("cpu_node", "config: node that it belongs to, from which it allocates first"),
        _m("cpu_clock", "owner: virtual time", True),
        _m("cpu_charged_ns", "owner: virtual time up to which a host's other CPUs have taken their share (steal.py)"),
        _m("cpu_tenths", "owner: tenths of a ns of user accesses that are not in cpu_clock yet"),
        _m("cpu_out_of_turn", "run_lease_lock held: it has its lease only because an ack may hang on it"),
        _m("cpu_slice_end", "owner: virtual time at which it offers its lease"),
        _m("cpu_irq_off", "owner: depth of irq-safe locks held"),
        _m("cpu_in_irq", "owner: 1 inside an interrupt handler"),
        _m("cpu_no_resched", "owner: depth of spin locks held"),
        _m("cpu_task", "owner: task it runs, -1 idle"),
        _m("cpu_last_task", "owner: task it ran last"),
        _m("cpu_site", "owner: SITE_* that a shootdown is put down to"),
        _m("cpu_hook", "owner: text-table number + 1 of the hook it is in, 0 none"),
        _m("cpu_random", "owner: state of its random stream"),
        _m("cpu_tick_ns", "owner: next scheduler tick"),
        _m("cpu_event_head", "owner: events recorded"), _m("cpu_traces", "owner: trace lines made"),
        _m("cpu_spin_page", "owner: page that its thread reads while it spins at a barrier + 1, 0 not spinning"),
        _m("cpu_last_fetch", "owner: code page that its thread entered last"),
        _m("cpu_live_count", "owner: entries of live_page"),
        _m("cpu_probing", "owner: 1 while it touches live pages again, which need not be mapped any more"),
        _m("cpu_visit_stamp", "owner: number of the last page visit, the TLB's notion of age"),
        _m("cpu_loaded_mm", "owner writes, any reads (who to interrupt): mm in cr3", True),
        _m("cpu_lazy", "owner writes, any reads: runs no user code of cpu_loaded_mm"),
        _m("cpu_asid", "owner: slot of cpu_loaded_mm"),
        _m("cpu_next_asid", "owner: slot to recycle next"),
        _m("cpu_context", "owner: tag of TLB entries of the current address space, never 0"),
        _m("call_kind", "owner before it queues, targets until they ack: what to do (IPI_*)", True),
        _m("call_mm", "same"), _m("call_start", "same: first vpn"), _m("call_end", "same: behind the last vpn"),
        _m("call_gen", "same: tlb_gen"),
        _m("call_stride", "same: pages from one address of the range to the next, log2"),
        _m("call_time", "same: virtual send time"), _m("call_sequence", "same"),
        _m("queue_lock", "spin: run queue of the CPU", True),
        _m("queue_count", "queue_lock held to write; any reads to find an idle CPU"),
        _m("queue_first", "queue_lock held"), _m("queue_last", "queue_lock held"),
        _m("gather_mm", "owner: address space of its mmu_gather", True),
        _m("gather_start", "owner: first vpn to flush"), _m("gather_end", "owner: behind the last vpn to flush"),
        _m("gather_cleared", "owner: levels cleared, bit 0 PTEs ... bit 3 P4Ds"), _m("gather_freed", "owner: page tables were taken out"),
        _m("gather_pages", "owner: pages in gather"), _m("gather_tables", "owner: tables in gather_table"),
        _m("ubc_required", "owner (its task): a batched flush is due (tlb_ubc.flush_required)", True),
        _m("ubc_writable", "owner (its task): a dirty or writable PTE is in the batch"),
        _m("lru_batch_count", "owner: pages in lru_batch"),
    )),
    Table("csd_next", "target side owner of the list; sender writes before it pushes: next node + 1 (node = sender * nr_cpus + target)",
          "nr_cpus", "nr_cpus"),
    Table("call_mask", "owner: targets of the request being built", "nr_cpus", "mask_words"),
    Table("ubc_mask", "owner: CPUs that the batched flush must reach (tlb_ubc.cpumask)", "nr_cpus", "mask_words"),
    Table("tmp_mask", "owner: scratch of the design", "nr_cpus", "mask_words"),
    Table("mm_rss", "owner: pages mapped in each mm, less those unmapped; any reads the sum over CPUs", "nr_cpus", "nr_mms"),
    Table("isolated_anon", "owner: NR_ISOLATED_ANON of each node; any reads the sum over CPUs", "nr_cpus", "nr_nodes"),
    Table("isolated_file", "owner: the same for files", "nr_cpus", "nr_nodes"),
    Table("poll_set", "owner (others read the first): struct pollfd of its eventfd and of its inbox, scratch word", "nr_cpus", 8),
    Table("message", "owner: the interrupt message being sent, behind it the one received", "nr_cpus", 16),
    Table("inbox_socket", "owner: ZeroMQ handle, of its process only", "nr_cpus"),
    Table("socket_events", "owner: scratch of zmq_getsockopt", "nr_cpus", 8),
    Table("peer_socket", "owner: ZeroMQ handle of the way to each CPU, 0 not connected", "nr_cpus", "nr_cpus"),
    Table("lease_core", "config: host core of each lease", LEASES_MAX),
    Table("lease_affinity", "config: the same as a cpu_set_t", LEASES_MAX, 16),
    Table("site_ipis", "owner: requests sent, by SITE_*", "nr_cpus", NR_SITES),
    Table("site_time", "owner: the same, by SITE_* and piece of virtual time (flush_times.py)", "nr_cpus", NR_SITES * TIME_PIECES),
    Table("site_time_joined", "owner: how often two pieces of site_time have become one", "nr_cpus"),
    Table("site_flushes", "owner: broadcasts sent, by SITE_*", "nr_cpus", NR_SITES),
    Table("asid_mm", "owner: mm of each ASID slot, -1 none", "nr_cpus", NR_ASIDS),
    Table("asid_gen", "owner: tlb_gen that the slot has reached", "nr_cpus", NR_ASIDS),
    Table("asid_context", "owner: tag of the slot's TLB entries", "nr_cpus", NR_ASIDS),
    Table("tlb_tag", "owner: vpn << 12 | context, 0 empty", "nr_cpus", "tlb_entries"),
    Table("tlb_value", "owner: pfn << 8 | TLB_* bits", "nr_cpus", "tlb_entries"),
    Table("tlb_logical", "owner: logical page that the entry was filled for (oracle)", "nr_cpus", "tlb_entries"),
    Table("tlb_age", "owner: stamp of the last use", "nr_cpus", "tlb_entries"),
    Table("tlb_filled_ns", "owner: virtual time of the fill (oracle)", "nr_cpus", "tlb_entries"),
    Table("tlb_change", "owner: changes of the mm that had begun when the entry was filled (oracle)", "nr_cpus", "tlb_entries"),
    Table("tlb_marked", "owner: what the logical page of a marked entry was, and what was taken away (oracle)", "nr_cpus", "tlb_entries"),
    Table("asid_changes", "owner: completed changes of the slot's mm that it has looked at (oracle)", "nr_cpus", NR_ASIDS),
    Table("live_page", "owner: pages in use when the TLB was flushed, vpn << 2 | kind (live.py)", "nr_cpus", LIVE_PAGES),
    Table("live_now", "owner: those being visited again", "nr_cpus", LIVE_PAGES),
    Table("trace", "owner: TRACES_FIRST lines, then a ring of TRACES_LAST", "nr_cpus", (TRACES_FIRST + TRACES_LAST) * TRACE_WORDS),
    Table("event", "owner: ring of EVENT_WORDS-word records", "nr_cpus", EVENT_RING * EVENT_WORDS),
    Table("lru_batch", "owner: folio_batch of pages on their way to an LRU list", "nr_cpus", FOLIO_BATCH + 1),
    Table("free_batch", "owner: folio_batch of pages on their way to the allocator", "nr_cpus", 2 * (FOLIO_BATCH + 1)),
    Table("gather", "owner: pages whose PTEs are cleared and not yet flushed (mmu_gather)", "nr_cpus", GATHER_PAGES),
    Table("gather_table", "owner: page tables taken out and not yet flushed (mmu_table_batch)", "nr_cpus", GATHER_TABLES),
    Table("keep_list", "owner: pages set aside by reclaim's second pass", "nr_cpus", WORK_PAGES),
    Table("work_list", "owner: pages isolated by reclaim and by migration, six lists", "nr_cpus", WORK_PARTS * WORK_PAGES),
    Table("tlb_flush_count", "owner: tlb:tlb_flush events, reason * TRACE_PAGES + pages", "nr_cpus", TRACE_REASONS * TRACE_PAGES),
    Table("pcp_lock", "spin word of a CPU's list of one zone (pcp->lock): its owner, and whoever drains all lists", "nr_cpus", "nr_zones"),
    Table("pcp_count", "pcp_lock held: pages in its list of the zone", "nr_cpus", "nr_zones"),
    Table("pcp_first", "pcp_lock held", "nr_cpus", "nr_zones"),
    Table("pcp_last", "pcp_lock held", "nr_cpus", "nr_zones"),
    Table("pcp_tuned", "owner: pcp->high as tuned so far", "nr_cpus", "nr_zones"),
    Table("pcp_alloc_factor", "owner: refills in a row without a free", "nr_cpus", "nr_zones"),
    Table("pcp_free_count", "owner: frees in a row, halved by each allocation", "nr_cpus", "nr_zones"),
    Table("violation", "winner of run_violations", VIOLATIONS_KEPT, VIOLATION_WORDS),
    Table("text", "config: addresses of entries", "nr_text"),
    # --- address spaces -------------------------------------------------------------------------------------
    Struct("nr_mms", (
        _m("mm_pgd", "config of the mm: frame of its top page table"),
        _m("mm_users", "whoever makes or ends the mm: 1 it exists"),
        _m("mm_nr_vmas", "mm_lock held for writing; read under it"),
        _m("mm_process", "config"),
        _m("mm_tlb_gen", "any, add: number of invalidations asked for (context.tlb_gen)", True),
        _m("mm_changes_begun", "ORACLE: any, add: changes of mappings that have begun", True),
        _m("mm_changes_done", "ORACLE: any, add: changes that are complete"),
        _m("mm_batched", "any, compare-exchange: tlb_flush_batched, pending | flushed << 16"),
        _m("mm_lock", "mmap_lock: readers + writer bit (locks.py)", True),
        _m("mm_lock_waiters", "any, exchange: somebody sleeps for mm_lock"),
        _m("mm_table_lock", "spin: page_table_lock, upper levels of the page table"),
        _m("mm_scan_vpn", "any, compare-exchange: next page of the NUMA scanner"),
        _m("mm_scan_next_ns", "any, compare-exchange: when the next scan is due, 0 never set"),
        _m("mm_scan_seq", "the scanner: passes over the whole mm"),
        _m("mm_hint_pages", "any, add"),
        _m("mm_flush_pending", "any, add: changes of PTEs under way whose flush has not been sent yet (tlb_flush_pending)"),
    )),
    Table("mm_change", "ORACLE: ring; whoever completed a change, its number last", "nr_mms", CHANGES_KEPT * CHANGE_WORDS),
    Table("mm_cpumask", "bit of CPU c: CPU c sets and clears (fetch-or, fetch-and); any reads", "nr_mms", "mask_words"),
    Table("mm_vma", "mm_lock held for writing: VMA numbers in address order", "nr_mms", MAX_VMAS),
    Struct("nr_vmas", (
        _m("vma_start", "mm_lock: first vpn"), _m("vma_end", "mm_lock: behind the last vpn"), _m("vma_flags", "mm_lock: VM_*"),
        _m("vma_mm", "any, compare-exchange 0 -> mm to take a free VMA; mm_lock after that"),
        _m("vma_object", "mm_lock: the file that it shows, -1 none"), _m("vma_anon", "mm_lock: its anon_vma, -1 none"),
        _m("vma_pgoff", "mm_lock: page of the object at vma_start"),
        _m("vma_next", "object_lock of the file held: next VMA that shows it + 1"),
        _m("vma_anon_next", "object_lock of the anon_vma held: next VMA of it + 1"),
        _m("vma_ra_start", "no lock, as in Linux (racy readahead state): window start", True),
        _m("vma_ra_size", "same"), _m("vma_ra_async", "same"), _m("vma_ra_miss", "same: mmap_miss"), _m("vma_ra_prev", "same"),
    )),
    # --- objects: page-cache files and anonymous memory -----------------------------------------------------
    Struct("nr_objects", (
        _m("object_kind", "config: OBJECT_FILE or OBJECT_ANON"),
        _m("object_cache", "config: first slot in cache_slot (files)"),
        _m("object_pages", "object_lock held to change: size"),
        _m("object_logical", "config: first logical page (files)"),
        _m("object_vmas", "object_lock held: first VMA that maps it + 1 (i_mmap, anon_vma)"),
        _m("object_lock", "spin, may wait for acks: i_mmap_rwsem / anon_vma lock", True),
        _m("object_cache_lock", "spin, irq-safe: xa_lock of the page cache", True),
        _m("object_nrpages", "object_cache_lock held"),
        _m("object_order", "config: order of the folios that cache it (files)"),
        _m("object_design", "the design's own word"),
    )),
    Table("cache_slot", "object_cache_lock held to write; racy reads look again: pfn + 1, 0 empty, negative shadow", "nr_cache_slots"),
    # --- frames ---------------------------------------------------------------------------------------------
    Struct("nr_frames", (
        _m("page_flags", "any, fetch-or / fetch-and: PG_*", True),
        _m("page_refcount", "any, add; 0 -> frozen by compare-exchange"),
        _m("page_mapcount", "any, add: PTEs that map it"),
        _m("page_object", "page lock or exclusive owner: object + 1, 0 none"),
        _m("page_index", "same: page of the object"),
        _m("page_next", "lock of the list it is on (lru, zone, owner of the pcp): next pfn, -1 end"),
        _m("page_prev", "same"),
        _m("page_private", "lock of the list it is on: buddy order; with PG_LARGE config of the folio: its order"),
    )),
    Table("page_key", "lock of its free list, or exclusive owner: the design's word for a free block, 0 nothing pending", "nr_frames"),
    # --- LUF's debug feature (designs/luf/debug.py); one row, never touched, unless `lufd` is set -----------
    Struct("nr_lufd_frames", (
        _m("lufd_ugen", "exclusive owner of the frame (who frees it, who has just taken it): newest request of its key, 0 no record"),
        _m("lufd_key", "same"), _m("lufd_object", "same: object that it held + 1"), _m("lufd_index", "same: page of that"),
        _m("lufd_freed_by", "same: CPU"), _m("lufd_freed_ns", "same"),
    )),
    Table("lufd_mask", "same: CPUs that the key named", "nr_lufd_frames", "mask_words"),
    Struct("nr_cpus", (
        _m("lufd_mm", "owner: mm whose record was noted when its store fault began, 0 none", True),
        _m("lufd_mm_ugen", "owner: newest request of that record"),
        _m("lufd_file", "owner: object + 1 whose record was noted when its store fault, or write(2), began"), _m("lufd_file_ugen", "owner"),
        _m("lufd_marked", "owner: records made"), _m("lufd_cleared", "owner: records found done"),
        _m("lufd_wrong", "owner: records found not done"), _m("lufd_checks", "owner: frames looked at"),
    )),
    Table("lufd_mm_mask", "owner: CPUs of the mm's record", "nr_cpus", "mask_words"),
    Table("lufd_file_mask", "owner: CPUs of the file's record", "nr_cpus", "mask_words"),
    Struct("one", (
        _m("lufd_lock", "spin: all done-numbers", True),
        _m("lufd_findings", "lufd_lock held"),
    )),
    Table("lufd_finding", "lufd_lock held: what luf_debug.py notes", LUFD_KEPT, LUFD_WORDS),
    Table("lufd_lag", "same: CPUs that lag", LUFD_KEPT, "mask_words"),
    Table("lufd_done", "same: done-number of every CPU", LUFD_KEPT, "nr_cpus"),
    Table("page_io_ns", "page lock: virtual time at which the read of it is done", "nr_frames"),
    Table("page_lock_word", "spin: split page-table lock of a page-table frame", "nr_frames"),
    Table("page_scan_ns", "racy, as in Linux: when the NUMA scanner unmapped it", "nr_frames", None, "int64"),
    Table("content", "ORACLE: logical page << 34 | version; written with a store, at hand-out and at copy", "nr_frames"),
    Table("version", "ORACLE: newest published version of a logical page; any, atomic maximum", "nr_logical"),
    Table("anon_holder", "ORACLE: any, compare-exchange: frame that bears the anonymous logical page + 1, 0 none", "nr_anon_logical"),
    Table("anon_object", "ORACLE: winner of anon_holder: anon_vma of the logical page, for witnesses", "nr_anon_logical"),
    Table("anon_index", "ORACLE: same: its index", "nr_anon_logical"),
    Table("disk_version", "ORACLE: version on disk of a file page; page lock", "nr_logical"),
    Table("frame_word", "contents of page-table frames: 512 PTEs each, atomic (sparse: other frames are never touched)", "nr_frames", 512),
    # --- zones ----------------------------------------------------------------------------------------------
    Struct("nr_zones", (
        _m("zone_start", "config: first pfn"), _m("zone_end", "config: behind the last pfn"), _m("zone_managed", "config: pages"),
        _m("zone_node", "config"),
        _m("zone_reserve", "config: pages kept from allocations that could use a higher zone of the node (lowmem_reserve)"),
        _m("wmark_min", "config"), _m("wmark_low", "config"), _m("wmark_high", "config"), _m("wmark_promo", "config"),
        _m("pcp_batch", "config"), _m("pcp_high_min", "config: pages"), _m("pcp_high_max", "config: pages"),
        _m("zone_lock", "spin, irq-safe", True),
        _m("zone_free", "zone_lock held to write: NR_FREE_PAGES"),
        _m("zone_pending", "zone_lock held: free pages with a key above zone_key_claimed (nr_luf_pages)"),
        _m("zone_key_claimed", "zone_lock held: keys up to this one are being flushed by somebody, or done"),
        _m("zone_key_done", "whoever flushed, in order: keys up to this one have nothing pending"),
        _m("zone_below_high", "racy, as in Linux: an allocation found it below HIGH (ZONE_BELOW_HIGH)", True),
        _m("zone_reclaim_active", "kswapd's CPU writes, any reads (ZONE_RECLAIM_ACTIVE)"),
    )),
    # --- nodes ----------------------------------------------------------------------------------------------
    Struct("nr_nodes", (
        _m("node_end", "config: behind the last pfn"), _m("node_first_zone", "config"), _m("node_end_zone", "config"),
        _m("node_latency", "config: 0 fast, 1 slow tier"), _m("demotion_target", "config: node or -1"), _m("node_has_cpus", "config"),
        _m("lru_lock", "spin, irq-safe", True),
        _m("node_age", "any, add: lruvec->nonresident_age"),
        _m("node_activated", "any, add: WORKINGSET_ACTIVATE_FILE"),
        _m("node_activated_seen", "whoever ends a reclaim: node_activated then (lruvec->refaults)"),
        _m("node_anon_cost", "lru_lock held: lruvec->anon_cost"), _m("node_file_cost", "lru_lock held: lruvec->file_cost"),
        _m("kswapd_lock", "spin: wake-up of the node's kswapd", True),
        _m("kswapd_task", "config: task number"),
        _m("kswapd_state", "kswapd_lock held: ASLEEP, NAPS, AWAKE"), _m("kswapd_nap_ns", "kswapd_lock held: end of its short sleep"),
        _m("kswapd_phase", "kswapd's CPU"), _m("kswapd_failures", "any, store"),
        _m("promote_start_ns", "any, compare-exchange: start of the rate limit's second"),
        _m("promote_start_count", "who set promote_start_ns: promote_count then"),
        _m("promote_count", "any, add: PGPROMOTE_CANDIDATE"),
        _m("hot_threshold", "any, store: adjusted threshold in ns, 0 the default"),
        _m("hot_start_ns", "any, compare-exchange: start of the threshold's period"),
        _m("hot_start_count", "who set hot_start_ns: promote_count then"),
    )),
    Struct("nr_scans", (
        # owner: the CPU of that number, behind them kswapd of each node on the CPU it runs on
        _m("sc_priority", "owner", True), _m("sc_to_reclaim", "owner"), _m("sc_reclaimed", "owner"), _m("sc_scanned", "owner"),
        _m("sc_batch", "owner: pages to take off a list next"), _m("sc_got", "owner: pages that shrink_lruvec has reclaimed in this call"),
        _m("sc_kept", "owner: folios that shrink_folio_list has left, at the front of work_list"),
        _m("sc_by", "owner: BY_KSWAPD, BY_DIRECT, BY_GROUP"), _m("sc_flags", "owner: SC_*"),
        _m("sc_group_low", "owner: BY_GROUP: bit of each inactive list (node * 4 + list) that was low when the call began"),
        _m("sc_before", "owner: sc_reclaimed when the round began"),
    )),
    Table("sc_left", "owner: pages left to scan per list", "nr_scans", NR_LRU),
    Table("sc_target", "owner: pages to scan per list, as get_scan_count said", "nr_scans", NR_LRU),
    Table("free_first", "zone_lock held: first free block of [zone, order], -1 none", "nr_zones", NR_ORDERS),
    Table("free_last", "zone_lock held", "nr_zones", NR_ORDERS),
    Table("free_count", "zone_lock held: blocks", "nr_zones", NR_ORDERS),
    Table("pend_first", "zone_lock held: free blocks whose key is not 0", "nr_zones", NR_ORDERS),
    Table("pend_last", "zone_lock held", "nr_zones", NR_ORDERS),
    Table("pend_count", "zone_lock held", "nr_zones", NR_ORDERS),
    Table("pend_key", "zone_lock held: newest key on the list", "nr_zones", NR_ORDERS),
    Table("pend_joined", "zone_lock held: newest key of the list when it last joined the free list", "nr_zones", NR_ORDERS),
    Table("lru_first", "lru_lock held: head of [node, list], -1 empty", "nr_nodes", NR_LRU),
    Table("lru_last", "lru_lock held", "nr_nodes", NR_LRU),
    Table("lru_size", "lru_lock held to write; any reads", "nr_nodes", NR_LRU),
    Table("zonelist", "config: zones by distance of their node, a node's higher ones first, -1 behind the last", "nr_nodes", "nr_zones"),
    Table("series", "winner of a sample: virtual ns, free pages of each node, then those of them with nothing pending", "series_length", 8),
    # --- tasks and programs ---------------------------------------------------------------------------------
    Struct("nr_tasks", (
        _m("task_kind", "config: TASK_USER, TASK_KSWAPD, TASK_DESIGN", True),
        _m("task_state", "queue_lock of its CPU, or its CPU: TASK_*"),
        _m("task_cpu", "waker: CPU it runs or ran on, -1 never"),
        _m("task_pinned", "config: CPU or -1"),
        _m("task_next", "queue_lock: next in the run queue + 1"),
        _m("task_mm", "config"), _m("task_process", "config"), _m("task_index", "config: thread of the process / node of kswapd"),
        _m("task_asked", "compare-exchange: a design's thread is ASLEEP, AWAKE, AWAKE_AGAIN"),
        _m("task_wake_ns", "waker, before it queues it: not before this virtual time"),
        _m("task_row", "its CPU: next row of its program"), _m("task_end", "config: behind its last row"),
        _m("task_visit", "its CPU: pages of the row already visited"),
        _m("task_step", "its CPU: how far a system call is that sleeps in the middle, 0 not begun"),
        _m("task_pins", "its CPU: entries of task_pin"),
        _m("task_section", "its CPU: section whose chunks it draws, -1 none"),
        _m("task_chunk_row", "its CPU"), _m("task_chunk_end", "its CPU"),
        _m("task_barrier", "its CPU: generation it waits for"),
        _m("task_start_ns", "its CPU"), _m("task_end_ns", "its CPU"), _m("task_slice_ns", "its CPU: end of its time slice"),
        _m("task_wait_ns", "its CPU: virtual time at which what it waits for is there"),
        _m("task_scan_period", "its CPU: ns between scans of its mm by it, 0 the shortest"),
        _m("task_scan_seq", "its CPU: mm_scan_seq judged last"),
        _m("task_runtime_ns", "any, add: time it has run (a task that blocked may run elsewhere before it is added here)"),
        _m("task_scan_stamp", "its CPU: task_runtime_ns from which its scan period counts"),
        _m("task_tried", "its CPU: page + 1 whose fault it sleeps for (FAULT_FLAG_TRIED)"),
        _m("task_wait_flag", "its CPU sets, whoever takes it back (exchange) wakes it: flag it sleeps for + 1"),
        _m("task_wait_count", "its CPU, before task_wait_flag: the count that it sleeps for"),
    )),
    Table("task_pin", "its CPU: frames that a device works on for it, -1 the zero page", "nr_tasks", PIN_PAGES),
    Struct("nr_rows", (
        _m("row_op", "config", False, "uint8"), _m("row_kind", "config", False, "uint8"), _m("row_region", "config", False, "uint16"),
        _m("row_pages", "config", False, "uint32"), _m("row_count", "config", False, "uint32"), _m("row_page", "config", False, "uint32"),
    )),
    Table("flag_count", "any, add: times that a flag of the workload was posted", "nr_flags"),
    Table("flag_ns", "any, atomic maximum: virtual time of its latest post", "nr_flags"),
    Table("snapshot", "the task that takes it: counters summed over all CPUs", "nr_snapshots", "nr_counters"),
    Table("snapshot_tlb", "same: tlb_flush_count summed over all CPUs", "nr_snapshots", TRACE_REASONS * TRACE_PAGES),
    Table("snapshot_irq", "same: irq_tlb of each CPU", "nr_snapshots", "nr_cpus"),
    Table("snapshot_site", "same: broadcasts by SITE_*", "nr_snapshots", NR_SITES),
    Table("snapshot_ns", "same: virtual time, 0 not taken", "nr_snapshots"),
    Table("section_next", "any, add: next undrawn chunk", "nr_sections"),
    Table("section_info", "config: first chunk, number of chunks", "nr_sections", 2),
    Table("chunk_rows", "config: first row, behind the last row", "nr_chunks", 2),
    Struct("nr_mms", (
        _m("proc_barrier_arrived", "any, add", True),
        _m("proc_barrier_done", "last one to arrive: barriers completed"),
        _m("proc_exited", "any, add: workers that have executed EXIT since the last JOIN", True),
        _m("proc_join_parties", "main thread, before proc_join_waits: workers it waits for"),
        _m("proc_join_waits", "main sets 1, whoever takes it back (exchange) wakes main"),
        _m("proc_start_ns", "main thread"), _m("proc_end_ns", "main thread"), _m("proc_tokens", "main thread"),
        _m("proc_first_task", "config"), _m("proc_first_section", "config"), _m("proc_nr_tasks", "config"),
        _m("proc_join_ns", "any, atomic maximum"),
    )),
    Table("proc_barrier_ns", "any, atomic maximum: latest arrival at barriers of even and odd number", "nr_mms", 2),
    Table("proc_region", "main thread of the process: first vpn of each region", "nr_mms", MAX_REGIONS),
    Table("proc_flags", "config: VM_* of each region", "nr_mms", MAX_REGIONS),
    Table("proc_file", "config: file that each region shows, -1 none", "nr_mms", MAX_REGIONS),
    Table("proc_offset", "config: page of the file at which it begins", "nr_mms", MAX_REGIONS),
    Table("proc_anon", "config: anon_vma of each region, -1 none", "nr_mms", MAX_REGIONS),
    Table("proc_token_ns", "main thread: virtual time at each MARK", "nr_mms", MAX_MARKS),
)  # fmt: skip
