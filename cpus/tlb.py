"""A CPU's private TLBs: first level for loads, for stores, for instruction fetches, and a shared second
level.

Geometry comes from the machine file (Golden Cove: 96 entries 6-way, 16 fully associative, 256 8-way, 2048
16-way); the number of sets is a power of two. Replacement is least recently used within a set, empty entries
first.
An entry is tagged with page and *context*, one for each ASID slot and never 0, so that an empty entry (tag 0)
matches nothing. The levels are neither inclusive nor exclusive, as reported for Intel ("TLB;DR", USENIX
Security 2022): a fill goes into both, each replaces on its own, and a hit in the first level does not make
the second level's entry younger. So a page may live in the first level alone, and a flush must look
everywhere.
Entries remember the logical page that they were filled for (the oracle's side) and when.
Only the owner CPU changes its TLBs: remote CPUs must send interrupts. Only the oracle looks at others'.

A flush clears the entries one by one, half a microsecond for them all. Giving the address space a new context
instead would cost nothing, but leave dead entries that look young and drive out live ones of other slots:
more misses than the machine has. XXX: Intel's replacement is a pseudo-LRU tree or worse ("TLB;DR" again), and
hashes the set number from more bits. Left out: huge-page entries, global entries, speculative fills,
prefetch.
"""

from cpus.abi.numbers import IFETCH, LOAD, STORE
from cpus.compiled import inlined, kernel
from cpus.declare import ANY, OWNER, Constant, Field, Struct
from cpus.ram import row

NR_ASIDS = 6  # TLB_NR_DYN_ASIDS (arch/x86/mm/tlb.c)
LIVE_PAGES = 32  # pages in use noted at a flush: the 16 + 8 of a recorded visit, and some
ENTRIES, SLOTS = ("nr_cpus", "tlb_entries"), ("nr_cpus", NR_ASIDS)
FIELDS = (
    Constant("nr_asids", "ASID slots in use, 1 without PCID"),
    Constant("exact_rows", "1: the workload's rows name every use of a page"),
    *(Constant(f"{tlb}_{word}", f"{word} of the TLB, in entries") for tlb in ("dtlb", "store", "itlb", "stlb")
      for word in ("sets", "ways", "base")),
    Struct("nr_cpus", "clock", (
        Field("cpu_visit_stamp", OWNER, "number of the last page visit, the TLB's notion of age"),
        Field("cpu_live_count", OWNER, "entries of live_page"),
    )),
    Struct("nr_cpus", "mm", (  # others look whom to interrupt
        Field("cpu_loaded_mm", OWNER, "mm in cr3", reads=ANY),
        Field("cpu_lazy", OWNER, "runs no user code of cpu_loaded_mm", reads=ANY),
        Field("cpu_asid", OWNER, "slot of cpu_loaded_mm", reads=ANY),
        Field("cpu_switches", OWNER, "how often it began or ended to load one: odd inside switch_mm",
              reads=ANY, oracle=True),
        Field("cpu_context", OWNER, "tag of TLB entries of the current address space, never 0"),
    )),
    Field("asid_context", OWNER, "tag of the slot's TLB entries", SLOTS, reads=ANY),
    Field("tlb_tag", OWNER, "vpn << 12 | context, 0 empty", ENTRIES, reads=ANY),
    Field("tlb_value", OWNER, "pfn << 8 | TLB_* bits", ENTRIES, reads=ANY),
    Field("tlb_age", OWNER, "stamp of the last use", ENTRIES),
    Field("live_page", OWNER, "pages in use when the TLB was flushed, vpn << 2 | kind (live.py)",
          ("nr_cpus", LIVE_PAGES)),
)  # fmt: skip

CONTEXT_BITS = 12  # as many as a PCID has
CONTEXT_MASK = (1 << CONTEXT_BITS) - 1
EMPTY = 0
VALUE_SHIFT = 8
# a page used again within so many visits is in use: recorded rows of hot pages lie up to some 70 visits apart
LIVE_VISITS = 256

# what a page fault gives, instead of an entry: the task must sleep until task_wait_ns; served, begin anew
WAIT, AGAIN = -1, -2


@kernel
def find_way(tags, first, ways, tag):
    """Look for `tag` in one set; returns the entry or -1."""
    i = first
    while i < first + ways:  # not `range`, which counts in a second register
        if tags[i] == tag:
            return i
        i += 1
    return -1


@kernel
def any_way(tags, base, sets, ways, vpn):
    """Is there an entry of this page in one TLB, of whatever context? Without a branch for each way: mostly
    there is none, and all are looked at.
    """
    first, wanted, found = base + (vpn & (sets - 1)) * ways, vpn << CONTEXT_BITS, False
    for i in range(first, first + ways):
        found |= tags[i] & ~CONTEXT_MASK == wanted
    return found


@kernel
def has_page(ram, cpu, vpn):
    """Is there an entry of this page in any of a CPU's TLBs, of whatever context?"""
    tags = row(ram.tlb_tag, cpu)
    return (
        any_way(tags, ram.stlb_base, ram.stlb_sets, ram.stlb_ways, vpn)
        | any_way(tags, ram.dtlb_base, ram.dtlb_sets, ram.dtlb_ways, vpn)
        | any_way(tags, ram.store_base, ram.store_sets, ram.store_ways, vpn)
        | any_way(tags, ram.itlb_base, ram.itlb_sets, ram.itlb_ways, vpn)
    )


@kernel
def oldest_way(ages, first, ways):
    """Choose the entry of a set to replace: an empty one (age 0), else the least recently used."""
    best, best_age = first, ages[first]
    i = first + 1
    while i < first + ways:
        age = ages[i]
        if age < best_age:
            best, best_age = i, age
        i += 1
    return best


@kernel
def first_level(ram, kind):
    """Give (base, sets, ways) of the first-level TLB that serves this kind of access."""
    if kind == LOAD:
        return ram.dtlb_base, ram.dtlb_sets, ram.dtlb_ways
    if kind == STORE:
        return ram.store_base, ram.store_sets, ram.store_ways
    return ram.itlb_base, ram.itlb_sets, ram.itlb_ways


@kernel
def _drop(ram, cpu, base, sets, ways, vpn, tag):
    """Empty the entry of one page in one TLB, if it is there."""
    i = find_way(row(ram.tlb_tag, cpu), base + (vpn & (sets - 1)) * ways, ways, tag)
    if i >= 0:
        ram.tlb_tag[cpu, i] = EMPTY
        ram.tlb_age[cpu, i] = 0


@kernel
def _note_live(ram, cpu, base, entries, kind, context):
    """Note the pages of one first-level TLB that its user is in the midst of using (live.py says why and
    which).
    """
    tags, ages = row(ram.tlb_tag, cpu), row(ram.tlb_age, cpu)
    oldest = ram.cpu_visit_stamp[cpu] - LIVE_VISITS
    for i in range(base, base + entries):
        tag, age = tags[i], ages[i]
        if (
            age > oldest
            and age > 0
            and tag & CONTEXT_MASK == context
            and ram.cpu_live_count[cpu] < LIVE_PAGES
        ):
            vpn = tag >> CONTEXT_BITS
            second = find_way(
                tags, ram.stlb_base + (vpn & (ram.stlb_sets - 1)) * ram.stlb_ways, ram.stlb_ways, tag
            )
            if second < 0 or ages[second] != age:  # used again since the second level gave it
                ram.live_page[cpu, ram.cpu_live_count[cpu]] = (vpn << 2) | kind
                ram.cpu_live_count[cpu] += 1


@kernel
def note_live_pages(ram, cpu, context):
    """Note the pages in use of one context, before a flush takes their entries away."""
    _note_live(ram, cpu, ram.dtlb_base, ram.dtlb_sets * ram.dtlb_ways, LOAD, context)
    _note_live(ram, cpu, ram.store_base, ram.store_sets * ram.store_ways, STORE, context)
    _note_live(ram, cpu, ram.itlb_base, ram.itlb_sets * ram.itlb_ways, IFETCH, context)


@inlined
def invalidate_page(ram, cpu, vpn, context):
    """INVLPG: drop one page of one context from all levels."""
    tag = (vpn << CONTEXT_BITS) | context
    _drop(ram, cpu, ram.dtlb_base, ram.dtlb_sets, ram.dtlb_ways, vpn, tag)
    _drop(ram, cpu, ram.store_base, ram.store_sets, ram.store_ways, vpn, tag)
    _drop(ram, cpu, ram.itlb_base, ram.itlb_sets, ram.itlb_ways, vpn, tag)
    _drop(ram, cpu, ram.stlb_base, ram.stlb_sets, ram.stlb_ways, vpn, tag)


@kernel
def _empty(ram, cpu, context):
    """Empty all entries of one context, in all levels."""
    tags, ages = row(ram.tlb_tag, cpu), row(ram.tlb_age, cpu)
    if ram.cpu_visit_stamp[cpu] == 0:
        # Nothing was ever visited. Plain stores, once, bring the host's pages in; the loop below compiles to
        # stores under a mask, which take 100 ns each as long as their page is not there.
        for i in range(ram.tlb_entries):
            tags[i] = EMPTY
            ages[i] = 0
        return
    for i in range(ram.tlb_entries):
        if tags[i] & CONTEXT_MASK == context:
            tags[i] = EMPTY
            ages[i] = 0


@kernel
def clear_asid(ram, cpu, slot):
    """Empty all entries of one ASID slot and make its context usable: before a slot's first use, and when it
    is recycled.
    """
    if ram.asid_context[cpu, slot] == 0:
        ram.asid_context[cpu, slot] = slot + 1
    context = ram.asid_context[cpu, slot]
    _empty(ram, cpu, context)
    if ram.cpu_asid[cpu] == slot:
        ram.cpu_context[cpu] = context


@kernel
def invalidate_asid(ram, cpu, slot):
    """Flush everything of one ASID slot (INVPCID single context, or a write to cr3)."""
    if ram.cpu_asid[cpu] == slot and ram.asid_context[cpu, slot] != 0 and not ram.exact_rows:
        note_live_pages(ram, cpu, ram.asid_context[cpu, slot])
    clear_asid(ram, cpu, slot)


@kernel
def new_context(ram, cpu):
    """Draw a context that no slot has, and empty what its last owner left. (`clear_asid` keeps the slot's own
    instead.)
    """
    context, taken = 0, True
    while taken:
        context += 1
        taken = False
        for slot in range(ram.nr_asids):
            if ram.asid_context[cpu, slot] == context:
                taken = True
    _empty(ram, cpu, context)
    return context
