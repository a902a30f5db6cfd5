"""The oracle on private memory: what each address must show, kept beside its PTE.

A private page, anonymous or a copy of a file's, exists in memory alone: if it is dropped, forgotten or put
somewhere else, what was stored is lost, and no reader of frames would notice, since the page that is found
instead is as good as any. So each entry of a page table has a word beside it with the private page that it
must show (`must_show`: the content that it was mapped with, which is a logical page and its version then),
under the same lock. It is set when a private page is mapped where there is none, or takes the place of
another by a copy on write; fork copies it, mremap moves it (with the table, if that is moved as a whole), and
whoever unmaps the address for its process takes it back (munmap, MADV_DONTNEED, truncation, exit). Reclaim
and migration do not touch it. A word for each table says whether any of its entries has ever had such a word:
tables that map nothing but files cost no look at 512 more.

It is compared when a walk fills an entry, and when a private page is mapped: hits cost nothing. LOST_DATA is
another page than the one that must be there, or a private page where none must be. MADV_FREE lets a page go
until somebody stores to it again: when the call is over, the version that is then the newest is noted
(`may_go`), and a page that is gone although a newer one was published is lost, through whatever TLB entry
that store went. While such a call is under way in the address space, nothing is lost by it.
How many addresses must show a private page is counted. If a walk finds a right to store to one that two must
show, as after a fork, the other one would see a store that is not its own: SHARED_STORE.
A device that reads into memory has its frames counted: if the process gets a copy of such a page, it loses
what the device writes.
Left out: versions (oracle.py judges those); a page that was freed lazily and whose number bears another page
by now, since nobody can tell whether it was stored to.
"""

from cpus.atomics import compare_exchange, fetch_add, fetch_or, load_acquire, store_release
from cpus.compiled import apart, inlined, kernel
from cpus.declare import Atomic, Field, Struct
from cpus.oracle import LOST_DATA, NO_ADDRESS, SHARED_STORE, VERSION_BITS, VERSION_MASK, report
from cpus.page_table import LEVEL_MASK, PTE_PRESENT, PTE_WRITE, pte_pfn

BESIDE = Atomic(
    "store_release", "compare_exchange", why="the pte lock is held, but where a walk finds a loss"
)
FIELDS = (
    Field("table_shows", Atomic("fetch_or"), "PRIVATE, LAZY: which words beside a table's entries are in use",
          ("nr_frames",), oracle=True),
    Field("must_show", BESIDE, "content with which the private page was mapped that a PTE must show, 0 none",
          ("nr_frames", 512), pages=True, oracle=True),
    Field("may_go", BESIDE, "version + 1 of that page with which it may be dropped, 0 it must stay",
          ("nr_frames", 512), pages=True, oracle=True),
    Struct("nr_mms", "changes", (
        Field("mm_freeing", Atomic("fetch_add"), "calls of MADV_FREE under way", oracle=True),
    )),
    Field("frame_devices", Atomic("fetch_add"), "devices that write to the frame", ("nr_frames",),
          oracle=True),
)  # fmt: skip

PRIVATE, LAZY = 1, 2  # table_shows: never taken back, so that nobody has to count


@inlined
def shown_at(ram, table, index):
    """The content that an entry must show, 0 none."""
    return load_acquire(ram.must_show, (table, index)) if load_acquire(ram.table_shows, table) else 0


@kernel
def _number(ram, word):
    """Number of the anonymous page in a content word, -1 if it is none."""
    number = (word >> VERSION_BITS) - ram.first_anon_logical
    return number if 0 <= number < ram.nr_anon_logical else -1


@kernel
def _holder(ram, word):
    """The frame that bore an anonymous page last."""
    return max(load_acquire(ram.anon_holder, _number(ram, word)), 0) - 1


@kernel
def _lives(ram, word):
    """Does an anonymous page still bear the number that it was mapped with?"""
    number = _number(ram, word)
    return number >= 0 and load_acquire(ram.anon_born, number) == word & VERSION_MASK


@kernel
def _count(ram, word, addresses):
    """Count addresses that must show a page."""
    if word != 0 and _lives(ram, word):
        fetch_add(ram.anon_addresses, _number(ram, word), addresses)


@kernel
def _may_be_gone(ram, mm, kept, at):
    """Was a private page freed lazily, and not stored to since?"""
    if load_acquire(ram.mm_freeing, mm) > 0:
        return True
    newest = load_acquire(ram.may_go, at)  # after that: a call notes it before it is over
    if newest == 0:
        return False
    if not _lives(ram, kept):
        return True
    return load_acquire(ram.version, kept >> VERSION_BITS) < newest


@apart
def another_page(ram, cpu, mm, vpn, table, found):
    """Another page (content word) is found than the PTE must show: say so if that is a loss, and forget the
    page that is gone.
    """
    at = (table, vpn & LEVEL_MASK)
    kept = load_acquire(ram.must_show, at)
    if kept == 0:  # or forgotten a moment ago, by another CPU that found the same page here
        if _number(ram, found) >= 0:
            report(ram, cpu, LOST_DATA, vpn, _holder(ram, found), -1, found, -1)
    elif kept >> VERSION_BITS != found >> VERSION_BITS:
        if not _may_be_gone(ram, mm, kept, at):
            newest = load_acquire(ram.version, kept >> VERSION_BITS)
            report(ram, cpu, LOST_DATA, vpn, _holder(ram, kept), (kept & ~VERSION_MASK) | newest, found, -1)
        if compare_exchange(ram.must_show, at, kept, 0) == kept:
            _count(ram, kept, -1)
    return 0


@inlined
def is_shared(ram, kept):
    """Must another address show this private page, too?"""
    return load_acquire(ram.anon_addresses, _number(ram, kept)) > 1


@apart
def stored_to_by_two(ram, cpu, vpn, table):
    """A PTE with the right to store shows a page that another address must show: say so, unless the right has
    gone meanwhile.

    fork takes the right before the child's address counts, and who gets it back has looked whether he is
    alone. So a right that is there between two looks at a shared page was there while it was shared.
    """
    kept = load_acquire(ram.must_show, (table, vpn & LEVEL_MASK))
    if kept == 0 or not is_shared(ram, kept):
        return 0
    pte = load_acquire(ram.frame_word, (table, vpn & LEVEL_MASK))
    word = load_acquire(ram.content, pte_pfn(pte))
    writable = pte & PTE_PRESENT and pte & PTE_WRITE and word >> VERSION_BITS == kept >> VERSION_BITS
    if writable and is_shared(ram, kept):
        report(ram, cpu, SHARED_STORE, vpn, pte_pfn(pte), kept, word, -1)
    return 0


@inlined
def is_another(ram, kept, word):
    """Does the word beside a PTE say that another page must be there than was found?"""
    if kept != 0:
        return kept >> VERSION_BITS != word >> VERSION_BITS
    return _number(ram, word) >= 0


# --- who maps, unmaps and moves; the pte lock is held -------------------------------------------------------


@kernel
def _use(ram, table, words):
    """Say that words beside a table's entries are in use, before they are."""
    if load_acquire(ram.table_shows, table) & words != words:
        fetch_or(ram.table_shows, table, words)


@kernel
def _put(ram, table, index, word, newest):
    _use(ram, table, PRIVATE | LAZY if newest else PRIVATE)
    _count(ram, load_acquire(ram.must_show, (table, index)), -1)
    _count(ram, word, 1)
    store_release(ram.must_show, (table, index), word)
    if load_acquire(ram.table_shows, table) & LAZY:
        store_release(ram.may_go, (table, index), newest)


@inlined
def now_shows(ram, cpu, mm, vpn, table, pfn):
    """A private page is about to be mapped where no page is."""
    if ram.check:
        word = load_acquire(ram.content, pfn)
        if shown_at(ram, table, vpn & LEVEL_MASK) != 0:
            another_page(ram, cpu, mm, vpn, table, word)
        _put(ram, table, vpn & LEVEL_MASK, word, 0)


@inlined
def shows_copy(ram, cpu, vpn, table, pfn, old):
    """A private page is about to be mapped in the place of the page in frame `old`, whose copy it is."""
    if ram.check:
        word = load_acquire(ram.content, pfn)
        if load_acquire(ram.frame_devices, old) > 0:
            report(ram, cpu, LOST_DATA, vpn, old, load_acquire(ram.content, old), word, -1)
        _put(ram, table, vpn & LEVEL_MASK, word, 0)


@inlined
def shows_no_more(ram, vpn, table):
    """A PTE was cleared for its own process."""
    if ram.check and shown_at(ram, table, vpn & LEVEL_MASK) != 0:
        _put(ram, table, vpn & LEVEL_MASK, 0, 0)


@inlined
def shows_the_same(ram, source, from_index, target, to_index):
    """A PTE is about to be copied (fork)."""
    if ram.check:
        word = shown_at(ram, source, from_index)
        if word != 0:
            _put(ram, target, to_index, word, load_acquire(ram.may_go, (source, from_index)))


@inlined
def shows_it_elsewhere(ram, source, from_index, target, to_index):
    """A PTE was cleared, and is about to be put elsewhere (mremap). At no time do two addresses show it."""
    if ram.check:
        word = shown_at(ram, source, from_index)
        if word != 0:
            newest = load_acquire(ram.may_go, (source, from_index))
            _put(ram, source, from_index, 0, 0)
            _put(ram, target, to_index, word, newest)


@inlined
def device_stores(ram, cpu, pfn):
    """A device has written to a page that it was given."""
    if ram.check:
        word = load_acquire(ram.content, pfn)
        if _number(ram, word) >= 0 and is_shared(ram, word):
            report(ram, cpu, SHARED_STORE, NO_ADDRESS, pfn, word, word, -1)


@kernel
def may_go_from_now(ram, vpn, table):
    """MADV_FREE of an address is over: its page may be dropped until somebody stores to it again."""
    word = shown_at(ram, table, vpn & LEVEL_MASK)
    if word != 0:
        _use(ram, table, LAZY)
        newest = load_acquire(ram.version, word >> VERSION_BITS)
        store_release(ram.may_go, (table, vpn & LEVEL_MASK), newest + 1)
