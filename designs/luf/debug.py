"""LUF's debug feature (slides, "Design LUF Debug Feature"; v12 patch 25, CONFIG_LUF_DEBUG): records in pages,
looked at before use.

Mechanism: a page that is freed with a key keeps a record of its own: the CPUs that the key named, the newest
request, what the page was. Whenever the kernel is about to write to a frame (HOOK_KMAP), or to make a PTE of
it writable (HOOK_MKWRITE), every CPU of the record must have done that request. If one has not, it is a
*finding*, kept with a dump of all CPUs' done-numbers (the first LUFD_KEPT; the patch warns once), and the run
goes on. Done-numbers stand still meanwhile: one lock for all of them (ugen.py).
Beyond the patch, which has such records in pages alone: when a store fault or a write(2) begins, the records
of its mm and its file are noted, and whom they named must be done when the PTE becomes writable or the bytes
are copied. So a forgotten flush of these triggers leaves a trace. Requests that come after the beginning are
not asked for: reclaim goes on.
v12 flushes at the end of handle_mm_fault, too late for that look, so with debug on it also flushes before (as
the patch does): that closes a window which is open without (luf_v12/debug.py). luf.py flushes in time as it
is; nothing is added there, or who forgets it would not be found.
It looks at the design's bookkeeping, never at contents: docs/debug-luf.md has a violation that it cannot see.
Left out: the looks of the patch at the end of a take-off and in __free_one_page (the audit looks at all
records at the end), kmap for reading.
"""

from allocator.kmap import FREE_PAGE, KMAP_WRITE, MKWRITE_ANON, MKWRITE_REUSE
from allocator.vma import is_shared_file
from cpus.abi.numbered import Numbered
from cpus.atomics import load_acquire
from cpus.compiled import kernel
from cpus.cpumask import __cpumask_set_cpu, cpumask_clear, cpumask_empty, for_each_cpu
from cpus.declare import OWNER, Constant, Exclusive, Field, Held, Struct
from cpus.ipi import MASKS
from designs.design import hook
from designs.luf.fields import common_state, luf_state
from designs.luf.records import add_record, of_file, of_key, of_mm
from designs.luf.ugen import all_have_done, is_done, lock_done, unlock_done

LUFD_KEPT, LUFD_WORDS = 16, 16  # findings with their details
RECORD = Exclusive("who frees the frame, or has just taken it", references=1)
FIELDS = (
    Constant("lufd", "1: the debug feature is on"),
    Struct("nr_lufd_frames", "", (
        Field("lufd_ugen", RECORD, "newest request of the frame's key, 0 no record"),
        Field("lufd_key", RECORD, "its key"),
        Field("lufd_object", RECORD, "object that it held + 1"),
        Field("lufd_index", RECORD, "page of that"),
        Field("lufd_freed_by", RECORD, "CPU"),
        Field("lufd_freed_ns", RECORD, "when", unit="ns"),
    )),
    Field("lufd_mask", RECORD, "CPUs that the key named", ("nr_lufd_frames", "mask_words")),
    Struct("nr_cpus", "lufd", (
        Field("lufd_mm", OWNER, "mm whose record was noted when its store fault began, 0 none"),
        Field("lufd_mm_ugen", OWNER, "newest request of that record"),
        Field("lufd_file", OWNER,
              "object + 1 whose record was noted when its store fault, or write(2), began"),
        Field("lufd_file_ugen", OWNER, "newest request of that record"),
        Field("lufd_marked", OWNER, "records made"),
        Field("lufd_cleared", OWNER, "records found done"),
        Field("lufd_wrong", OWNER, "records found not done"),
        Field("lufd_checks", OWNER, "frames looked at"),
    )),
    Field("lufd_mm_mask", OWNER, "CPUs of the mm's record", MASKS),
    Field("lufd_file_mask", OWNER, "CPUs of the file's record", MASKS),
    Struct("one", "lufd", (Field("lufd_findings", Held("lufd_lock", at="one"),
                                 "findings, also those that are not kept"),)),
    Field("lufd_finding", Held("lufd_lock", at="one"), "details of a finding", (LUFD_KEPT, LUFD_WORDS)),
    Field("lufd_lag", Held("lufd_lock", at="one"), "CPUs that lag", (LUFD_KEPT, "mask_words")),
    Field("lufd_done", Held("lufd_lock", at="one"), "done-number of every CPU", (LUFD_KEPT, "nr_cpus")),
)  # fmt: skip

RECORDS = Numbered[str]()  # whose record a finding is about
OF_PAGE = RECORDS.add("page", 1)
OF_MM = RECORDS.add("mm")
OF_FILE = RECORDS.add("file")


# --- findings -----------------------------------------------------------------------------------------------


@kernel
def _note(ram, state, cpu, whose, mask, row, ugen, number, pfn, site, a, b):
    """Keep a finding: which record, where, who lags, and the done-numbers of all CPUs at one moment.
    lufd_lock held.
    """
    n = ram.lufd_findings[0]
    ram.lufd_findings[0] = n + 1
    if n >= LUFD_KEPT:
        return
    for target in range(ram.nr_cpus):
        ram.lufd_done[n, target] = load_acquire(state.ugen_done, target)
    cpumask_clear(ram.lufd_lag, n)
    for target in for_each_cpu(mask, row):
        if not is_done(state, target, ugen):
            __cpumask_set_cpu(target, ram.lufd_lag, n)
    values = ram.lufd_finding
    values[n, 1], values[n, 2], values[n, 3], values[n, 4], values[n, 5] = site, cpu, pfn, a, b
    values[n, 6], values[n, 7], values[n, 8] = ugen, number, ram.lufd_key[pfn]
    values[n, 9], values[n, 10] = ram.lufd_object[pfn], ram.lufd_index[pfn]
    values[n, 11], values[n, 12] = ram.lufd_freed_by[pfn], ram.lufd_freed_ns[pfn]
    values[n, 13], values[n, 14] = ram.cpu_clock[cpu], ram.cpu_task[cpu]
    values[n, 0] = whose


@kernel
def all_done(ram, state, cpu, whose, mask, row, ugen, number, pfn, site, a, b):
    """Have all CPUs of a record done its request? If not, that is a finding."""
    lock_done(ram, cpu)
    done = all_have_done(state, mask, row, ugen)
    if not done:
        _note(ram, state, cpu, whose, mask, row, ugen, number, pfn, site, a, b)
    unlock_done(ram, cpu)
    return done


# --- records of pages ---------------------------------------------------------------------------------------


@kernel
def check_page(ram, state, cpu, pfn, site, a, b):
    """Look at a frame's record, if it has one, and forget it: it is done, or reported."""
    ram.lufd_checks[cpu] += 1
    ugen = ram.lufd_ugen[pfn]
    if ugen == 0:
        return
    if all_done(ram, state, cpu, OF_PAGE, ram.lufd_mask, pfn, ugen, pfn, pfn, site, a, b):
        ram.lufd_cleared[cpu] += 1
    else:
        ram.lufd_wrong[cpu] += 1
    ram.lufd_ugen[pfn] = ram.lufd_key[pfn] = 0


@kernel
def mark_page(ram, state, cpu, pfn, key, required):
    """A page is freed with a key: fold the key's batch into its record (lufd_mark_folio). It must have none
    that is not done.
    """
    check_page(ram, state, cpu, pfn, FREE_PAGE, 0, 0)
    cpumask_clear(ram.lufd_mask, pfn)
    ugen = add_record(ram, state, cpu, of_key(ram, key), ram.lufd_mask, pfn)
    if not required or cpumask_empty(ram.lufd_mask, pfn):
        return  # such a batch is folded into nothing
    ram.lufd_ugen[pfn], ram.lufd_key[pfn] = ugen, key
    ram.lufd_object[pfn], ram.lufd_index[pfn] = ram.page_object[pfn], ram.page_index[pfn]
    ram.lufd_freed_by[pfn], ram.lufd_freed_ns[pfn] = cpu, ram.cpu_clock[cpu]
    ram.lufd_marked[cpu] += 1


# --- records of mm and file, from the beginning of a fault or a write to its look ---------------------------


@kernel
def note_mm(ram, state, cpu, mm):
    """A store fault begins: whom the mm's record names now must be done when the PTE becomes writable."""
    cpumask_clear(ram.lufd_mm_mask, cpu)
    ram.lufd_mm_ugen[cpu] = add_record(ram, state, cpu, of_mm(ram, mm), ram.lufd_mm_mask, cpu)
    ram.lufd_mm[cpu] = mm


@kernel
def note_file(ram, state, cpu, object):
    """A store fault in a shared file, or a write(2), begins: the same for the file's record."""
    cpumask_clear(ram.lufd_file_mask, cpu)
    ram.lufd_file_ugen[cpu] = add_record(ram, state, cpu, of_file(object), ram.lufd_file_mask, cpu)
    ram.lufd_file[cpu] = object + 1


@kernel
def forget_noted(ram, cpu):
    """Nothing is noted."""
    ram.lufd_mm[cpu] = ram.lufd_file[cpu] = 0


@kernel
def _check_noted(ram, state, cpu, pfn, site, a, b):
    """Look at what was noted when the fault or the write began; reported once."""
    mm, object = ram.lufd_mm[cpu], ram.lufd_file[cpu] - 1
    if mm > 0 and not all_done(
        ram, state, cpu, OF_MM, ram.lufd_mm_mask, cpu, ram.lufd_mm_ugen[cpu], mm, pfn, site, a, b
    ):
        ram.lufd_mm[cpu] = 0
    if object >= 0 and not all_done(
        ram, state, cpu, OF_FILE, ram.lufd_file_mask, cpu, ram.lufd_file_ugen[cpu], object, pfn, site, a, b
    ):
        ram.lufd_file[cpu] = 0


# --- hooks --------------------------------------------------------------------------------------------------


@hook("kmap")
def debug_kmap(ram, cpu, pfn, site, a, b):
    """The kernel is about to write to a frame: look at its record, and for write(2) at its file's."""
    state = common_state(ram)
    check_page(ram, state, cpu, pfn, site, a, b)
    if site == KMAP_WRITE:
        _check_noted(ram, state, cpu, pfn, site, a, b)
    return 0


@hook("mkwrite")
def debug_mkwrite(ram, cpu, pfn, site, mm, vpn):
    """A PTE becomes writable: look at its frame's record, and in a write fault at the mm's and the file's."""
    state = common_state(ram)
    check_page(ram, state, cpu, pfn, site, mm, vpn)
    if MKWRITE_ANON <= site <= MKWRITE_REUSE:
        _check_noted(ram, state, cpu, pfn, site, mm, vpn)
    return 0


@hook("keep")
def luf_debug_free(ram, cpu, pfn, key, c, d):
    """free_page with a key."""
    mark_page(ram, luf_state(ram), cpu, pfn, key, True)
    return 0


@hook("fault_begins")
def luf_debug_fault(ram, cpu, mm, vma, vpn, store):
    """Note the records that luf_write_fault will flush."""
    forget_noted(ram, cpu)
    if store:
        state = luf_state(ram)
        note_mm(ram, state, cpu, mm)
        if is_shared_file(ram, vma):
            note_file(ram, state, cpu, ram.vma_object[vma])
    return 0


@hook("write_begins")
def luf_debug_write(ram, cpu, object, page, c, d):
    """Note the record that luf_file_write will flush."""
    forget_noted(ram, cpu)
    note_file(ram, luf_state(ram), cpu, object)
    return 0


LUF_DEBUG = (debug_kmap, debug_mkwrite, luf_debug_free, luf_debug_fault, luf_debug_write)
