"""Shrink a finding: the smallest case that still shows the same bug, to be read, committed and replayed.

    shrunk = shrink(case, run, "reuse: load, taken away by munmap", seconds=20)

`run(case)` gives a `Seen`. Taken away, as long as the signature stays, are hand-overs of the schedule,
threads, calls, loops, words of calls, pages, and what the machine says. A schedule names scheduling points
by number, and who does less passes fewer of them; so a smaller test is tried with the schedule as it is, and
then with a few that are drawn, from a stream of the case's own. What a drawn one did becomes the list of the
next step. Nothing else is random: the same case shrinks the same way, as far as time allows. Left out: the
smallest case of all, which nobody could afford to look for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from emulator.replay.case import Case
from emulator.replay.seen import Seen
from emulator.schedule import Schedule
from workloads.litmus import smaller
from workloads.litmus.laid_out import text_of
from workloads.litmus.sheet import REPEAT, Call, Line, LitmusError, Sheet
from workloads.litmus.test import litmus_of

SECONDS = 20.0
DRAWN = 3  # schedules that are drawn for a smaller test
DISTANCES = (0, 30, 100, 300, 1000)  # of a walk that is drawn
DRAWS_AFTER = 8  # a test that has failed with so many drawn schedules in a row: the next have fewer

Item = TypeVar("Item")
Run = Callable[[Case], Seen]


@dataclass(frozen=True, slots=True)
class Shrunk:
    """What came out: the case, what its last run showed, and what it cost. `complete`: there was time to try
    all.
    """

    case: Case
    seen: Seen
    runs: int
    seconds: float
    complete: bool

    @property
    def size(self) -> dict[str, int]:
        """Count what a reader has to look at."""
        switches = len(self.case.schedule.switches) if self.case.schedule else 0
        found = {"switches": switches, "calls": 0, "threads": 0, "pages": 0}
        if self.case.test:
            sheet = self.case.sheet()
            found |= {
                "calls": smaller.count_calls(sheet),
                "threads": len(sheet.columns),
                "pages": smaller.count_pages(sheet),
            }
        return found


def shrink(
    case: Case,
    run: Run,
    signature: str,
    *,
    seconds: float = SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> Shrunk | None:
    """Shrink a case that shows `signature`; None if it does not show it again."""
    search = _Search(case, run, signature, clock, clock() + seconds)
    began = clock()
    if not search.shows(case):
        return None
    search.list_switches()
    size = None
    while size != search.size() and not search.over:
        size = search.size()
        search.fewer_switches()
        if search.case.test:
            search.smaller_test()
    return Shrunk(search.case, search.seen, search.runs, clock() - began, not search.over)


def replays(case: Case, run: Run, seen: Seen, times: int) -> int:
    """Say how many of so many runs do the same, event by event."""
    same = (seen.signature, seen.fingerprint)
    return sum((again.signature, again.fingerprint) == same for again in (run(case) for _ in range(times)))


def fewest(items: Sequence[Item], holds: Callable[[list[Item]], bool]) -> list[Item]:
    """Leave out of the items what can be, in ever smaller stretches, as long as what is left `holds`.

    >>> fewest(range(100), lambda kept: {3, 77} <= set(kept))
    [3, 77]
    """
    kept = list(items)
    if kept and holds([]):
        return []
    size = max(1, len(kept) // 2)
    while kept:
        at, before = len(kept), len(kept)
        while at > 0:  # from the end: what comes last is most likely of no use any more
            at = max(0, at - size)
            fewer = kept[:at] + kept[at + size :]
            if len(fewer) < len(kept) and fewer and holds(fewer):
                kept = fewer
        if size == 1 and len(kept) == before:
            break
        size = max(1, size // 2)
    return kept


class _Search:
    """The smallest case so far, and trying smaller ones."""

    def __init__(
        self, case: Case, run: Run, signature: str, clock: Callable[[], float], until: float
    ) -> None:
        self.case, self.run, self.signature = case, run, signature
        self.clock, self.until = clock, until
        self.seen = Seen()
        self.runs = 0
        self.in_vain = 0  # drawn schedules that did not help, in a row
        self.random = np.random.default_rng(np.random.SeedSequence([case.seed, *b"shrink"]))
        self.tried: set[str] = set()  # tests that did not show it

    @property
    def over(self) -> bool:
        return self.clock() >= self.until

    def size(self) -> tuple[str, int]:
        """What a round of tries may change."""
        return self.case.test, len(self.case.schedule.switches) if self.case.schedule else 0

    def shows(self, case: Case) -> bool:
        """Run a case; if it shows the bug, it is the smallest so far."""
        if self.over:
            return False
        self.runs += 1
        try:
            seen = self.run(case)
        except ValueError:  # no such test can be, or no such schedule
            return False
        if seen.signature != self.signature:
            return False
        schedule = case.schedule
        if schedule is not None and schedule.strategy == "listed":  # without what made no difference
            case = replace(case, schedule=_listed(schedule, seen.switches))
        self.case, self.seen = case, seen
        return True

    # --- the schedule ---------------------------------------------------------------------------------------

    def list_switches(self) -> None:
        """Have what the schedule did as a list, if that repeats the run."""
        schedule = self.case.schedule
        if schedule is not None and schedule.strategy != "listed":
            listed = _listed(schedule, self.seen.switches)
            # rules are looked at where CPUs hand over, of which a list has few, or wherever there is a record
            if not self.shows(replace(self.case, schedule=listed)) and schedule.rules:
                self.shows(replace(self.case, schedule=replace(listed, records=1)))

    def fewer_switches(self) -> None:
        """Leave out hand-overs."""
        schedule = self.case.schedule
        if schedule is None or schedule.strategy != "listed":
            return
        first = self.case
        if self.shows(replace(first, schedule=None)):
            return
        fewest(
            schedule.switches,
            lambda kept: self.shows(replace(first, schedule=_listed(schedule, kept))),
        )

    # --- the test -------------------------------------------------------------------------------------------

    def smaller_test(self) -> None:
        """Leave out of the test what can be, the largest parts first."""
        self._bare()
        steps = (self._threads, self._together, self._calls, self._heads, self._loops, self._words,
                 self._regions, self._cpus)  # fmt: skip
        for step in steps:
            step()

    def _bare(self) -> None:
        sheet = self.case.sheet()
        if [key for key, _ in sheet.heads if key not in (*smaller.KEPT_HEADS, "about")]:
            self._try(smaller.bare(sheet, self.signature))
        self._try(smaller.without_unused_regions(self.case.sheet()))

    def _together(self) -> None:
        """What columns must lose together: a flag, or turns of loops in which they meet."""
        for flag in smaller.flags(self.case.sheet()):
            self._try(smaller.without_flag(self.case.sheet(), flag))
        for count in smaller.loop_counts(self.case.sheet()):
            for fewer in smaller.smaller_numbers(count):
                if fewer != "0" and self._try(smaller.with_count(self.case.sheet(), count, fewer)):
                    break

    def _threads(self) -> None:
        sheet = self.case.sheet()
        fewest(sheet.columns, lambda kept: self._try(smaller.with_columns(sheet, kept)))

    def _calls(self) -> None:
        sheet = self.case.sheet()
        fewest(smaller.paths(sheet), lambda kept: self._try(smaller.with_calls(sheet, kept)))

    def _loops(self) -> None:
        """Do loops fewer times, or what is in them once."""
        self._each_call(lambda call: _fewer_times(call) if call.body else ())

    def _words(self) -> None:
        """Fewer arguments of calls, smaller numbers in them."""
        self._each_call(lambda call: ([one] for one in smaller.fewer_words(call) if not call.body))

    def _each_call(self, others: Callable[[Call], Iterable[Sequence[Call]]]) -> None:
        """Put the first of the others that shows the bug in a call's place, as long as there is one."""
        at = 0
        while at < len(paths := smaller.paths(sheet := self.case.sheet())) and not self.over:
            path = paths[at]
            for other in others(smaller.call_at(sheet, path)):
                if self._try(smaller.changed(sheet, path, other)):
                    break
            else:
                at += 1

    def _heads(self) -> None:
        """Leave out regions, and what the machine says."""
        self._try(smaller.without_unused_regions(self.case.sheet()))
        sheet = self.case.sheet()
        about = [head for head in sheet.heads if head[0] == "about"]
        others = [head for head in sheet.heads if head[0] != "about"]
        fewest(others, lambda kept: self._try(smaller.with_heads(sheet, [*about, *kept])))

    def _regions(self) -> None:
        """Fewer pages, and fewer words of a region."""
        at = 0
        while at < len(heads := (sheet := self.case.sheet()).heads) and not self.over:
            key, line = heads[at]
            for text in smaller.smaller_regions(line.text) if key == "region" else ():
                other = (key, Line(line.number, text))
                if self._try(smaller.with_heads(sheet, [*heads[:at], other, *heads[at + 1 :]])):
                    break
            else:
                at += 1

    def _cpus(self) -> None:
        """Fewer CPUs, as few as show it."""
        sheet = self.case.sheet()
        cpus = int(litmus_of(sheet, sheet.file).machine["cpus"])
        others = [(key, line) for key, line in sheet.heads if key != "machine" or "cpus" not in line.text]
        for fewer in range(2, cpus):
            if self._try(smaller.with_heads(sheet, [*others, ("machine", Line(1, f"cpus = {fewer}"))])):
                return

    def _try(self, sheet: Sheet) -> bool:
        """Does this test show it, with the schedule as it is, or with one that is drawn?"""
        columns = [column for column in sheet.columns if column.calls]
        text = text_of(smaller.with_columns(sheet, columns)) if columns else ""
        if not text or text in self.tried or text == self.case.test or self.over:
            return False
        case = replace(self.case, test=text)
        try:
            case.litmus()
        except LitmusError:
            return False
        if self.shows(case):
            return True
        for other in self._drawn(case):
            if self.shows(other):
                self.in_vain = 0
                self.list_switches()
                return True
            self.in_vain += 1
        self.tried.add(text)
        return False

    def _drawn(self, case: Case) -> Iterator[Case]:
        """Give the case with other schedules; without scheduling points, with other seeds."""
        for _ in range(DRAWN if self.in_vain < DRAWS_AFTER else 1):
            seed = int(self.random.integers(1, 2**31))
            if case.schedule is None:
                yield replace(case, seed=seed)
            else:
                distance = int(self.random.choice(DISTANCES))
                yield replace(
                    case,
                    schedule=replace(
                        case.schedule, strategy="walk", distance=distance, seed=seed, switches=(), records=0
                    ),
                )


def _listed(schedule: Schedule, switches: Iterable[tuple[int, int, int]]) -> Schedule:
    return replace(schedule, strategy="listed", switches=tuple(switches))


def _fewer_times(loop: Call) -> Iterator[Sequence[Call]]:
    """Give what may stand for a loop: its body, once; fewer times of it."""
    yield loop.body
    if loop.name == REPEAT:
        for fewer in smaller.fewer_words(loop):
            if fewer.words[1] != "0":
                yield [fewer]
