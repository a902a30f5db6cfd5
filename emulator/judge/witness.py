"""Write a violation, or an exposure, as a proof: the call that took the translation away, and the last events
that touched its frame and page, merged over all CPUs from their rings.

Their order is the total order of events (cpus/events.py), in which the access itself has a place, too. Each
bears the clock of its CPU, and clocks of CPUs differ: a later event may show an earlier time. Reads the RAM
after the run has stopped. Left out: events that the rings no longer hold (the text says so), drawing
(Perfetto comes with the traces).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from allocator.page_cache import OBJECT_FILE
from cpus.abi.numbers import PAGE_BYTES
from cpus.completion import WRITE_PROTECTED
from cpus.events import (
    EV_CHANGE,
    EV_FILL,
    EV_FLUSH,
    EV_FREE,
    EV_MAP,
    EV_MIGRATE,
    EV_MOVE,
    EV_TAKE,
    EV_UNMAP,
    EV_WRITE,
    EVENT_RING,
    EVENT_TASK_SHIFT,
    EVENT_WORDS,
)
from cpus.exposed import EXPOSURES_KEPT, FIRST_OF_PAGES, LOADED, OCCASIONS, WINDOWS_KEPT
from cpus.exposed_changes import PROTECTED, TAKEN_AWAY
from cpus.exposed_writes import WRITTEN_OUT
from cpus.oracle import (
    DROPPED,
    NO_ADDRESS,
    NOBODY,
    SHARED_STORE,
    VERSION_BITS,
    VERSION_MASK,
    VIOLATIONS,
    VIOLATIONS_KEPT,
)
from cpus.page_table import PTE_WRITE
from emulator.build import file_sizes
from emulator.findings import EXPOSED, Event, Taken, Violation
from emulator.judge.taken import CallNames, open_calls
from emulator.judge.traces import CPU_MASK, actor, kept_lines
from workloads.rows import Workload

PLACE, T_NS, KIND, A, B, C, D, WHO = range(EVENT_WORDS)
FRAME_EVENTS = {EV_MAP: "map", EV_UNMAP: "unmap", EV_FREE: "free", EV_TAKE: "take", EV_FILL: "fill"}
FRAME_EVENTS |= {EV_MIGRATE: "migrate", EV_MOVE: "move"}  # A is a frame
TAKES_AWAY = (EV_UNMAP, EV_MOVE, EV_CHANGE)  # which the CPU should have flushed for
KINDS = FRAME_EVENTS | {EV_WRITE: "write", EV_FLUSH: "flush", EV_CHANGE: "change"}
LINES_AT_MOST, FIRST_LINES = 8, 3  # of a proof, before the access; those that are kept at its beginning
SINCE = {EV_UNMAP: "after that unmap", EV_MOVE: "after that move", EV_CHANGE: "after that change"}
HANDED_OUT = "memory that was handed out again"
NO_ACCESS = {DROPPED: "drop", SHARED_STORE: "device write"}  # at no address
LEFTOVERS = {
    TAKEN_AWAY: "a translation that a call has taken away",
    PROTECTED: "a right to store that a call has taken away",
    WRITTEN_OUT: "a right to store, unnoticed, to a page that counts as clean",
}


class Names:
    """Words for logical pages, address spaces and tasks of one run."""

    def __init__(self, ram: Any, workload: Workload):
        self.ram = ram
        self.calls = CallNames(ram, workload)
        self.free_clears = bool(ram.init_on_free or ram.kasan_poison)
        self.files: list[tuple[int, int, str]] = []
        self.anonymous: dict[int, str] = {}
        first = 0
        for name, pages in file_sizes(workload).items():
            self.files.append((first, pages, f"file {name}"))
            first += pages
        for p, process in enumerate(workload.processes):
            for i, region in enumerate(process.regions):
                self.anonymous.setdefault(int(ram.proc_anon[p, i]), f"anon {region.name} of {process.name}")

    def actor(self, who: int) -> str:
        """Name the CPU of an event, and the thread that it ran."""
        thread = self.calls.thread((who >> EVENT_TASK_SHIFT) - 1)
        return actor(self.ram, who) + (f" ({thread})" if thread else "")

    def logical(self, number: int) -> str:
        """`file model1, page 66`; what the kernel uses has no logical page."""
        if number == NOBODY:
            return "memory that was cleared, or handed out again" if self.free_clears else HANDED_OUT
        if number == self.ram.zero_logical:
            return "the zero page"
        for first, pages, name in self.files:
            if first <= number < first + pages:
                return f"{name}, page {number - first}"
        own = number - self.ram.first_anon_logical
        return self.private(int(self.ram.anon_object[own]), int(self.ram.anon_index[own]))

    def private(self, object: int, index: int) -> str:
        """A page of anonymous memory."""
        return f"{self.anonymous.get(object, f'anonymous memory {object}')}, page {index}"

    def of_object(self, object: int, index: int) -> str:
        """A page of a file or of anonymous memory, by the object's number."""
        if self.ram.object_kind[object] != OBJECT_FILE:
            return self.private(object, index)
        return self.logical(int(self.ram.object_logical[object]) + index)

    def word(self, word: int) -> str:
        """A content word: its page and version."""
        if word < 0:
            return "what was never filled"
        if word >> VERSION_BITS == NOBODY:
            return self.logical(NOBODY)
        return f"{self.logical(word >> VERSION_BITS)}, version {word & VERSION_MASK}"


def merged_events(ram: Any) -> np.ndarray:
    """Give all events that the rings still hold, in their total order: rows of EVENT_WORDS words."""
    rows = []
    for cpu in range(ram.nr_cpus):
        head = int(ram.cpu_event_head[cpu])
        own = ram.event[cpu].reshape(EVENT_RING, EVENT_WORDS)[: min(head, EVENT_RING)]
        # of a ring that has wrapped the oldest may be half overwritten: its CPU was killed in the midst of it
        rows.append(own if head < EVENT_RING else np.delete(own, head % EVENT_RING, axis=0))
    events = np.concatenate(rows)
    return events[np.argsort(events[:, PLACE], kind="stable")]


def violations(ram: Any, workload: Workload, design: str) -> list[Violation]:
    """Give every recorded violation with its witness, as plain data for the report and the JSON. Exposures
    are told where no access was wrong: one that was says more.
    """
    count = min(int(ram.run_violations[0]), VIOLATIONS_KEPT)
    exposed = 0 if count else min(int(ram.run_exposures[0]), EXPOSURES_KEPT)
    if count + exposed == 0:
        return []
    names = Names(ram, workload)
    events = merged_events(ram)
    found = [
        witnessed(ram, names, events, ram.violation[i].tolist()) for i in range(count) if ram.violation[i, 0]
    ]
    return found + [
        exposure(ram, names, events, ram.exposure[i].tolist()) for i in range(exposed) if ram.exposure[i, 0]
    ]


def witnessed(ram: Any, names: Names, events: np.ndarray, record: list[int]) -> Violation:
    """Give one violation with the events that led to it, in their order, the access itself last."""
    what, cpu, vpn, pfn, expected, found, at_ns, filled_ns, mm, place, task, entry = record[:12]
    access = NO_ACCESS.get(what, "") if vpn == NO_ADDRESS else _access(ram, entry)
    events = events[events[:, PLACE] < place]
    rows = _related(ram, events, record)
    seen = _seen(names, rows, pfn, expected, found)
    if seen < len(rows):
        events = events[events[:, PLACE] < rows[seen, PLACE]]
    rows = rows[:seen]
    this: Event = {
        "place": place, "t_ns": at_ns, "kind": access, "frame": pfn,
        "actor": names.actor(cpu | (task + 1) << EVENT_TASK_SHIFT),
        "what": _access_text(access, vpn, pfn),
    }  # fmt: skip
    taken, calls = _taken(names, events, rows)
    told = [*_shortened([_told(names, row.tolist()) for row in rows]), *calls]
    violation: Violation = {
        "kind": VIOLATIONS[what],
        "cpu": cpu,
        "t_ns": at_ns,
        "access": access,
        "mm": mm,
        "task": task,
        "frame": pfn,
        "expected": names.word(expected),
        "found": names.word(found),
        "events": [*_with_traces(ram, told, place, pfn, vpn), this],
    }
    if vpn != NO_ADDRESS:
        violation |= {"address": vpn * PAGE_BYTES, "page": vpn, "filled_ns": filled_ns}
        violation["however"] = _however(rows, cpu, mm, vpn)
    if taken:
        violation["taken"] = taken
    return violation


def _access_text(access: str, vpn: int, pfn: int) -> str:
    """Say what an access does, for the last line of a proof."""
    if access == "drop":
        return f"drop frame {pfn} as clean"
    if access == "device write":
        return f"end a device's write to frame {pfn}"
    return f"{access} {_address(vpn)} {'in' if access == 'store' else 'from'} frame {pfn}"


def windows(ram: Any, workload: Workload) -> list[Violation]:
    """Give the exposures that vanilla's batches leave open, too, with their witnesses."""
    count = min(int(ram.run_windows[0]), WINDOWS_KEPT)
    if count == 0:
        return []
    names, events = Names(ram, workload), merged_events(ram)
    rows = ram.exposure[EXPOSURES_KEPT : EXPOSURES_KEPT + count].tolist()
    return [exposure(ram, names, events, record) for record in rows if record[0]]


def exposure(ram: Any, names: Names, events: np.ndarray, record: list[int]) -> Violation:
    """Give one exposure: whose entry it is, who took its translation away, what was about to happen, what was
    missing.
    """
    occasion, holder, vpn, pfn, expected, found, at_ns, filled_ns, mm, place, task, _, by, why = record[:14]
    done, due = (text.format(_subject(names, occasion, vpn, pfn, expected)) for text in OCCASIONS[occasion])
    harm = (
        "memory that is about to belong to somebody else"
        if occasion < FIRST_OF_PAGES
        else LEFTOVERS.get(occasion, "a frame that the page has left")
    )
    reached = f"its ASID slot has reached the newest tlb_gen of mm {mm}, so coming back would not flush it"
    events = events[events[:, PLACE] < place]
    rows = _related(ram, events, record)
    this: Event = {
        "place": place, "t_ns": at_ns, "kind": EXPOSED, "frame": pfn,
        "actor": names.actor(by | (task + 1) << EVENT_TASK_SHIFT), "what": done,
    }  # fmt: skip
    taken, calls = _taken(names, events, rows)
    told = [*_shortened([_told(names, row.tolist()) for row in rows]), *calls]
    violation: Violation = {
        "kind": EXPOSED,
        "claim": f"cpu{holder} could use {harm}",
        "cpu": holder,
        "t_ns": at_ns,
        "address": vpn * PAGE_BYTES,
        "page": vpn,
        "mm": mm,
        "task": task,
        "frame": pfn,
        "filled_ns": filled_ns,
        "expected": names.word(expected),
        "found": names.word(found),
        "why": f"it has mm {mm} loaded, and runs in it" if why == LOADED else reached,
        "should": f"cpu{holder} should have been flushed before {due}.",
        "however": _however(rows, holder, mm, vpn),
        "events": [*_with_traces(ram, told, place, pfn, vpn), this],
    }
    if taken:
        violation["taken"] = taken
    return violation


def _subject(names: Names, occasion: int, vpn: int, pfn: int, expected: int) -> str:
    """Name what an exposure is about: a frame, a page of a file, a private address."""
    if occasion < FIRST_OF_PAGES:
        return str(pfn)
    is_file = expected >> VERSION_BITS < names.ram.zero_logical
    return names.logical(expected >> VERSION_BITS) if is_file else _address(vpn)


def _shortened(lines: list[Event]) -> list[Event]:
    """Leave out the middle of a long proof, and say so."""
    more = len(lines) - LINES_AT_MOST + 1
    if more < 2:
        return lines
    rest = lines[FIRST_LINES + more :]
    gap: Event = {"place": rest[0]["place"] - 1, "kind": "gap", "what": f"({more} more events)"}
    return [*lines[:FIRST_LINES], gap, *rest]


def _with_traces(ram: Any, lines: list[Event], until: int, pfn: int, vpn: int) -> list[Event]:
    """Put lines of `trace` among the events, from the first of these on: those with the frame or the page
    among their values, or else the last ones. A line stands behind the event that it came after.
    """
    since = min((line["place"] for line in lines), default=0)
    traced = [line for line in kept_lines(ram) if since <= line.sequence < until]
    about = [line for line in traced if {pfn, vpn} & set(line.values)]
    reported: list[Event] = [
        {"place": line.sequence, "t_ns": line.t_ns, "kind": "trace", "actor": actor(ram, line.who),
         "what": f"trace: {line.said}"}
        for line in about[:LINES_AT_MOST] or traced[-LINES_AT_MOST:]
    ]  # fmt: skip
    return sorted([*lines, *reported], key=lambda line: line["place"])


def _taken(names: Names, events: np.ndarray, rows: np.ndarray) -> tuple[Taken | None, list[Event]]:
    """Give the call in which the translation was taken away, which the first of the rows tells, and a line
    each for its begin and its return.
    """
    if not len(rows) or rows[0, KIND] not in TAKES_AWAY:
        return None, []
    calls = open_calls(events, rows[0].tolist())
    if not calls:
        return None, []
    begin, end = calls[0]
    what = " in ".join(names.calls.full(call.begin) for call in calls)
    taken: Taken = {
        "call": names.calls.short(calls), "what": what, "actor": names.actor(begin[WHO]),
        "begin": begin[PLACE],
    }  # fmt: skip
    lines: list[Event] = [_call_line(names, "call", begin, f"begin {what}")]
    if end:
        taken["end"] = end[PLACE]
        lines.append(_call_line(names, "return", end, f"end {names.calls.name(begin)}"))
    return taken, lines


def _call_line(names: Names, kind: str, row: list[int], what: str) -> Event:
    return {
        "place": row[PLACE],
        "t_ns": row[T_NS],
        "kind": kind,
        "actor": names.actor(row[WHO]),
        "what": what,
    }


def _address(vpn: int) -> str:
    return f"0x{vpn * PAGE_BYTES:_x}"


def _access(ram: Any, entry: int) -> str:
    """Tell by the first-level TLB that an entry lies in what kind of access used it."""
    if entry < ram.store_base:
        return "load"
    return "store" if entry < ram.itlb_base else "fetch"


def _related(ram: Any, events: np.ndarray, record: list[int]) -> np.ndarray:
    """Pick the events that matter from the unmap on that left the entry stale: those of the frame, what was
    promised of the address, the flushes of it by this CPU, and what was written to the page that the CPU
    meant.

    That unmap is the last one of this mapping. If there is a newer mapping, the entry was filled from that,
    and what was taken away is a right: then from the last promise of the address. If the rings no longer hold
    it: from the last unmap before the frame was handed out again.
    """
    cpu, vpn, pfn, expected, mm = record[1], record[2], record[3], record[4], record[8]
    kind, a, b, c = (events[:, column] for column in (KIND, A, B, C))
    files = (kind == EV_WRITE) & (ram.object_kind[np.where(kind == EV_WRITE, b, 0)] == OBJECT_FILE)
    written = files & (ram.object_logical[np.where(files, b, 0)] + c == expected >> VERSION_BITS)
    promised = (kind == EV_CHANGE) & (a == mm) & (b <= vpn) & (vpn < c)
    flushed = (kind == EV_FLUSH) & (events[:, WHO] & CPU_MASK == cpu) & (a == mm)
    flushed &= (b < 0) | ((b <= vpn) & (vpn < b + c))
    of_frame = (np.isin(kind, list(FRAME_EVENTS)) & (a == pfn)) | ((kind == EV_MIGRATE) & (b == pfn))
    if pfn == ram.zero_page:  # which all have, everywhere
        of_frame &= (b == mm) & (c == vpn)
    chosen = of_frame | written | promised | flushed
    rows, of_frame, promised = (array[chosen] for array in (events, of_frame, promised))
    unmaps = of_frame & np.isin(rows[:, KIND], (EV_UNMAP, EV_MOVE))
    own = np.flatnonzero(unmaps & (rows[:, B] == mm) & (rows[:, C] == vpn))
    mapped = (rows[:, KIND] == EV_MAP) & (rows[:, C] == vpn) | (rows[:, KIND] == EV_MOVE) & (
        rows[:, D] == vpn
    )
    mapped = np.flatnonzero(of_frame & mapped & (rows[:, B] == mm))
    promises = np.flatnonzero(promised)
    if len(mapped) and len(promises) and mapped[-1] < promises[-1] and (not len(own) or own[-1] < mapped[-1]):
        return rows[promises[-1] :]
    if len(own):  # the very mapping that the entry was filled from
        return rows[own[-1] :]
    left = np.flatnonzero(of_frame & np.isin(rows[:, KIND], (EV_TAKE, EV_MIGRATE)))
    stale = np.flatnonzero(unmaps[: left[-1] if len(left) else len(rows)])
    first = stale[-1:] if len(stale) else np.flatnonzero(of_frame)[-LINES_AT_MOST:]
    return rows[first[0] :] if len(first) else rows[:0]


def _seen(names: Names, rows: np.ndarray, pfn: int, expected: int, found: int) -> int:
    """Give how many of the rows came before the access: what it found in the frame says it.

    What changes contents is recorded before it does so. So an event that the access has not seen yet may have
    an earlier number; it is left out, with all behind it.
    """
    poisons = (EV_TAKE, EV_FREE) if names.free_clears else (EV_TAKE,)
    held = [(0, expected >> VERSION_BITS << VERSION_BITS)]  # (rows so far, what the frame held then)
    for i, row in enumerate(rows.tolist(), 1):
        if row[KIND] in poisons and row[A] == pfn:
            held.append((i, NOBODY << VERSION_BITS))
        elif (row[KIND] == EV_FILL and row[A] == pfn) or (row[KIND] == EV_MIGRATE and row[B] == pfn):
            held.append((i, row[D]))
    for n, (_, word) in reversed(list(enumerate(held))):
        if word >> VERSION_BITS == found >> VERSION_BITS and word <= found:
            return len(rows) if n + 1 == len(held) else held[n + 1][0] - 1
    return len(rows)


def _however(rows: np.ndarray, cpu: int, mm: int, vpn: int) -> str:
    """Say whether the CPU flushed this page between the unmap and the access."""
    if not len(rows):
        return "the event rings no longer hold what happened to the frame"
    first = rows[0].tolist()
    since = SINCE.get(first[KIND], "in what the event rings still hold")
    flushes = int((rows[:, KIND] == EV_FLUSH).sum())
    if flushes == 0:
        return f"cpu{cpu} did not flush this page {since}."
    times = "once" if flushes == 1 else f"{flushes} times"
    return f"cpu{cpu} flushed this page {times} {since}, and filled the entry again from what it found."


def _told(names: Names, row: list[int]) -> Event:
    place, t_ns, kind, a, b, c, d, who = row
    line: Event = {"place": place, "t_ns": t_ns, "kind": KINDS[kind], "actor": names.actor(who)}
    if kind in FRAME_EVENTS:
        line["frame"] = b if kind == EV_MIGRATE else a
    line["what"] = _what(names, kind, a, b, c, d)
    return line


def _what(names: Names, kind: int, a: int, b: int, c: int, d: int) -> str:
    if kind == EV_UNMAP:
        rights = "writable" if d & PTE_WRITE else "read-only"
        return f"unmap frame {a} from mm {b} at {_address(c)} ({rights})"
    if kind == EV_MAP:
        return f"map frame {a} in mm {b} at {_address(c)}"
    if kind == EV_FREE:
        return f"free frame {a}" + (f" with key {d}" if d else "") + " and clear it" * names.free_clears
    if kind == EV_TAKE:
        return f"take frame {a} in rmqueue"
    if kind == EV_FILL:
        return f"fill frame {a} with {names.word(d)}"
    if kind == EV_MIGRATE:
        return f"move frame {a} to frame {b}"
    if kind == EV_MOVE:
        return f"move the PTE of frame {a} in mm {b} from {_address(c)} to {_address(d)}"
    if kind == EV_WRITE:
        return f"publish version {d} of {names.of_object(b, c)}"
    if kind == EV_FLUSH:
        return f"flush mm {a}" + (f" from {_address(b)} to {_address(b + c)}" if b >= 0 else "")
    use = "writes to" if d == WRITE_PROTECTED else "uses"
    return f"promise that nobody {use} mm {a} from {_address(b)} to {_address(c)} any more"
