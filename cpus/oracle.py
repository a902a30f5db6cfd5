"""The oracle: judges every access on the CPU that makes it, without reading a structure of the design under
test.

A frame's content is one word: logical page << 34 | version. A logical page is a page of a file or of
anonymous memory. A TLB entry remembers the logical page that it was filled for. A store makes the next
version on the frame and then publishes it; a load fetches the published version first and then reads the
frame. So what it reports has happened: no false alarms.
- REUSE: the frame belongs to another logical page by now (or to the kernel).
- STALE: the frame is older than what had been published before the load began.
- LOST: a store found its frame older than what had been published: it overwrites what nobody will see.
- LATE: the mapping had been taken away, or made read-only, and the call that did so had returned
  (completion.py).
- UNFILLED: a walk found a present PTE of a frame that nobody had filled (a bug of the kernel, not of the
  flushing).
- LOST_DATA: an address shows another page than the private one that it must show (lost_data.py).
- DROPPED: a page of a file leaves the cache as clean though the disk has an older version of it.
- SHARED_STORE: a CPU may store to a private page that another address must show, too (lost_data.py).
Pages of files have fixed logical pages. Anonymous ones get one when they are filled (zeroed, or copied on a
write): after fork one address of two processes may be two pages, or one. A number is used again only when no
frame bears it any more. Left out: bytes within a page (one word stands for all), accesses of the kernel
itself.
"""

from cpus.abi.numbered import Numbered
from cpus.atomics import compare_exchange, fetch_add, fetch_max, load_acquire, store_release, unlikely
from cpus.compiled import inlined, kernel, later
from cpus.declare import ANY, OWNER, Atomic, Constant, Exclusive, Field, Struct
from cpus.events import EV_FILL, draw_place, record
from cpus.host import EXIT_STOPPED
from cpus.lease import VIOLATED

VIOLATIONS_KEPT, VIOLATION_WORDS = 64, 12
FIELDS = (
    Constant("check", "1: every access is judged"),
    Constant("violations_limit", "violations after which the run ends"),
    Constant("zero_logical", "logical page of the zero page"),
    Constant("first_anon_logical", "first logical page of anonymous memory"),
    Struct("one", "tasks", (Field("run_violations", Atomic("fetch_add"), "violations found", oracle=True),)),
    Struct("one", "rotors", (Field("run_next_anon", Atomic("fetch_add"), "rotor over anonymous logical pages",
                                   oracle=True),)),
    Field("violation", Exclusive("winner of run_violations"), "details of the first ones",
          (VIOLATIONS_KEPT, VIOLATION_WORDS), oracle=True),
    Field("tlb_logical", OWNER, "logical page that the entry was filled for", ("nr_cpus", "tlb_entries"),
          reads=ANY, oracle=True),
    Field("tlb_filled_ns", OWNER, "virtual time of the fill", ("nr_cpus", "tlb_entries"), reads=ANY,
          unit="ns", oracle=True),
    Field("content",
          Atomic("compare_exchange", "store_release", why="a store, or who has the frame to himself"),
          "logical page << 34 | version of what a frame holds", ("nr_frames",), oracle=True),
    Field("version", Atomic("fetch_max"), "newest published version of a logical page", ("nr_logical",),
          oracle=True),
    Struct("nr_anon_logical", "", (
        Field("anon_holder", Atomic("compare_exchange", "store_release"),
              "frame that bears the anonymous logical page + 1, 0 none", oracle=True),
        Field("anon_object", Exclusive("winner of anon_holder"), "anon_vma of the page, for witnesses",
              oracle=True),
        Field("anon_index", Exclusive("winner of anon_holder"), "its page of that", oracle=True),
        Field("anon_born", Exclusive("winner of anon_holder"), "its version when it got its name", reads=ANY,
              oracle=True),
        Field("anon_addresses", Atomic("fetch_add", "store_release"), "addresses that must show it",
              oracle=True),
    )),
)  # fmt: skip

VERSION_BITS = 34  # 17 billion stores to one page before a version would run into the logical page
VERSION_MASK = (1 << VERSION_BITS) - 1
# logical page of a frame that was handed out and not yet filled, or that the kernel uses
NOBODY = (1 << 29) - 1

VIOLATIONS = Numbered[str]()
REUSE = VIOLATIONS.add("reuse", 1)  # 0: the details of a violation are not complete yet
STALE = VIOLATIONS.add("stale read")
LOST = VIOLATIONS.add("lost write")
UNFILLED = VIOLATIONS.add("mapped before it was filled")
LATE = VIOLATIONS.add("access after completion")
LOST_DATA = VIOLATIONS.add("lost data")
SHARED_STORE = VIOLATIONS.add("store to a shared page")
DROPPED = VIOLATIONS.add("dropped store")
NO_ADDRESS = -1


shell_leave = later("shell_leave", 2)


@kernel
def report(ram, cpu, what, vpn, pfn, expected, found, entry):
    """Record a violation (the first VIOLATIONS_KEPT with their details)."""
    place = draw_place(ram)  # after the load: whatever it has seen has an earlier one
    n = fetch_add(ram.run_violations, 0, 1)
    if n < VIOLATIONS_KEPT:
        _note(ram, cpu, n, what, vpn, pfn, expected, found, entry, place)
    if ram.violations_limit > 0 and n + 1 >= ram.violations_limit:
        store_release(ram.run_stop, 0, VIOLATED)
        shell_leave(ram, cpu, EXIT_STOPPED)  # at once: a controlled run then ends at the same event each time


@kernel
def _note(ram, cpu, n, what, vpn, pfn, expected, found, entry, place):
    """Keep the details of violation number `n`; its kind last, which says that they are complete."""
    ram.violation[n, 1] = cpu
    ram.violation[n, 2] = vpn
    ram.violation[n, 3] = pfn
    ram.violation[n, 4] = expected
    ram.violation[n, 5] = found
    ram.violation[n, 6] = ram.cpu_clock[cpu]
    ram.violation[n, 7] = ram.tlb_filled_ns[cpu, entry] if entry >= 0 else -1
    ram.violation[n, 8] = ram.cpu_loaded_mm[cpu]
    ram.violation[n, 9] = place
    ram.violation[n, 10] = ram.cpu_task[cpu]
    ram.violation[n, 11] = entry
    ram.violation[n, 0] = what


@kernel
def filled_for(ram, cpu, vpn, pfn, word):
    """Give the logical page that a TLB entry is filled for: `word` was the frame's content while it was
    mapped here.
    """
    if word >> VERSION_BITS < ram.nr_logical:
        return word >> VERSION_BITS
    report(ram, cpu, UNFILLED, vpn, pfn, -1, word, -1)
    return 0  # some page that has a version to look up: the access will be judged wrong, as it is


@inlined
def leaves_as_clean(ram, cpu, pfn, on_disk):
    """A page of a file, which nobody can use any more, is about to be dropped: the disk must have what was
    stored to it (version `on_disk`).
    """
    if ram.states or ram.check:
        word = load_acquire(ram.content, pfn)
        if word & VERSION_MASK > on_disk:
            report(ram, cpu, DROPPED, NO_ADDRESS, pfn, word, word & ~VERSION_MASK | on_disk, -1)


@kernel
def publish(ram, logical, version):
    """Make `version` visible as the newest of the logical page."""
    fetch_max(ram.version, logical, version)


@kernel
def _fits(word, logical, published):
    return word >> VERSION_BITS == logical and word & VERSION_MASK >= published


@kernel
def check_load(ram, pfn, logical):
    """Load from a frame; returns (was it coherent, what had been published, what was found). The caller
    reports (`incoherent`).
    """
    published = load_acquire(ram.version, logical)
    word = load_acquire(ram.content, pfn)
    return _fits(word, logical, published), published, word


@kernel
def check_store(ram, pfn, logical):
    """Store to a frame: it gets the next version, which is then published, unless that is incoherent. Returns
    what check_load does.
    """
    published = load_acquire(ram.version, logical)
    word = load_acquire(ram.content, pfn)
    while True:
        if unlikely(not _fits(word, logical, published)):
            return False, published, word
        seen = compare_exchange(ram.content, pfn, word, word + 1)
        if seen == word:
            publish(ram, logical, (word + 1) & VERSION_MASK)
            return True, published, word
        word = seen


CLAIMED = -1


@kernel
def name_anonymous(ram, cpu, pfn, object, index):
    """Fill a frame, which its caller owns alone, with a new anonymous page: a free logical page and its next
    version.

    There are twice as many numbers as frames, so that looking for a free one ends soon: on average each is
    asked for once a round.
    """
    while True:
        number = fetch_add(ram.run_next_anon, 0, 1) % ram.nr_anon_logical
        holder = load_acquire(ram.anon_holder, number)
        logical = ram.first_anon_logical + number
        if holder == CLAIMED or (
            holder > 0 and load_acquire(ram.content, holder - 1) >> VERSION_BITS == logical
        ):
            continue
        if compare_exchange(ram.anon_holder, number, holder, CLAIMED) == holder:
            break
    ram.anon_object[number], ram.anon_index[number] = object, index
    word = (logical << VERSION_BITS) | (load_acquire(ram.version, logical) + 1)
    ram.anon_born[number] = word & VERSION_MASK
    store_release(ram.anon_addresses, number, 0)
    record(ram, cpu, EV_FILL, pfn, object, index, word)
    store_release(ram.content, pfn, word)
    store_release(ram.anon_holder, number, pfn + 1)
    publish(ram, logical, word & VERSION_MASK)


@kernel
def move_content(ram, pfn, target):
    """Copy a page's content to the frame that takes its place."""
    word = load_acquire(ram.content, pfn)
    store_release(ram.content, target, word)
    number = (word >> VERSION_BITS) - ram.first_anon_logical
    if 0 <= number < ram.nr_anon_logical:
        store_release(ram.anon_holder, number, target + 1)


@kernel
def set_content(ram, pfn, logical, version):
    """Fill a frame that its caller owns alone (zeroing, reading from disk)."""
    store_release(ram.content, pfn, (logical << VERSION_BITS) | version)


@kernel
def poison(ram, pfn):
    """Mark a frame as handed out: whoever still reads it through an old translation reads somebody else's
    memory.
    """
    store_release(ram.content, pfn, NOBODY << VERSION_BITS)
