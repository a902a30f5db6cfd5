"""Run `luf stress` on every planted bug (tests/planted), and tell which it finds, by what, and how soon.

    python -m tests.campaigns.planted [--only NAME ...] [--kind design] [--seconds 60] [--jobs 1]
    python -m tests.campaigns.planted --without litmus     # what each part is worth: litmus, states, points
    python -m tests.campaigns.planted --write              # docs/planted.md, from the journal

A hunt is noted in a journal as soon as it is over, so a campaign that was interrupted goes on where it was:
what the journal has for the same bug, time and parts is not hunted again, unless its text has changed. One
line for each hunt; a summary. Exit code 1 if a bug was not found or stress failed, 0 otherwise.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path

from emulator.output_file import write_atomically
from tests.campaigns.planted_page import page, summary
from tests.planted.bugs import ROOT, Bug, all_bugs
from tests.planted.hunt import Hunt, hunt

JOURNAL = ROOT / "build" / "planted.jsonl"
PAGE = ROOT / "docs" / "planted.md"
PARTS = ("litmus", "states", "points")
KINDS = ("design", "historic", "engine")  # in this order: what compiles soonest comes first


@dataclass(slots=True)
class Journal:
    """The hunts of a file, one JSON object to a line; the newest of each counts."""

    path: Path

    def hunts(self) -> dict[tuple[str, str, tuple[str, ...], float, int], Hunt]:
        """Give them by bug, its text, parts left out, time, and cores. A line that was cut off is none."""
        found = {}
        for line in self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else ():
            try:
                noted = json.loads(line)
            except ValueError:
                continue
            text = noted.pop("planted")
            one = Hunt(**noted | {"without": tuple(noted["without"])})
            found[one.bug, text, one.without, one.limit, one.cores] = one
        return found

    def add(self, bug: Bug, one: Hunt) -> None:
        """Note one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as out:
            out.write(json.dumps(asdict(one) | {"planted": text_of(bug)}) + "\n")


def text_of(bug: Bug) -> str:
    """Give a number for what a bug changes, and where it is looked for."""
    return hashlib.sha256(repr((bug.design, bug.changes)).encode()).hexdigest()[:12]


def chosen(bugs: dict[str, Bug], only: Iterable[str], kind: str | None, every: int = 1) -> list[Bug]:
    """Give the bugs with these names (* stands for anything), of this kind: every so many-th of designs and
    of the engine, in the order of the tables, and all historic ones. Raises ValueError for a name that is
    none.
    """
    patterns = list(only) or ["*"]
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in bugs):
            raise ValueError(f"'--only' must name planted bugs (got {pattern!r})")
    named = [bug for name, bug in bugs.items() if any(fnmatch(name, pattern) for pattern in patterns)]
    of = {one: [bug for bug in named if bug.kind == one] for one in KINDS if kind in (None, one)}
    return [bug for one, found in of.items() for bug in (found if one == "historic" else found[::every])]


def campaign(
    bugs: list[Bug],
    journal: Journal,
    seconds: float,
    without: tuple[str, ...],
    jobs: int,
    shrink: bool,
    each: int = 1,
) -> Iterator[Hunt]:
    """Hunt each bug that the journal does not have, `jobs` at a time on so many cores `each`; give all in the
    order of their ends.
    """
    noted = journal.hunts()
    todo = []
    for bug in bugs:
        one = noted.get((bug.name, text_of(bug), without, seconds, each))
        if one and not one.error:
            yield one
        else:
            todo.append(bug)

    def look(bug: Bug) -> Hunt:
        one = hunt(bug, seconds, without=without, cores=each, shrink=shrink)
        journal.add(bug, one)
        return one

    cores = deque(sorted(os.sched_getaffinity(0)))

    def have_cores() -> None:
        """Stress takes the first cores that it may have, and each hunt is to have its own: those of the
        thread that starts it.
        """
        mine = [cores.popleft() for _ in range(min(each, len(cores)))]
        cores.extend(mine)
        os.sched_setaffinity(0, mine)

    with ThreadPoolExecutor(jobs, initializer=have_cores if jobs > 1 else None) as pool:
        yield from pool.map(look, todo)


def main(arguments: list[str] | None = None) -> int:
    """Run the campaign as the options say."""
    options = _parser().parse_args(arguments)
    journal, bugs = Journal(Path(options.journal)), all_bugs()
    if options.write:
        hunts = {key: one for key, one in journal.hunts().items() if key[1] == text_of(bugs[key[0]])}
        write_atomically(PAGE, page(bugs, list(hunts.values())))
        return 0
    without = tuple(sorted(options.without))
    hunts = []
    for one in campaign(
        chosen(bugs, options.only, options.kind, options.every), journal, options.seconds, without,
        options.jobs, not options.no_shrink, options.cores,
    ):  # fmt: skip
        hunts.append(one)
        print(line(one), flush=True)
    print(summary(hunts), flush=True)
    return 0 if all(one.found for one in hunts) else 1


def line(one: Hunt) -> str:
    """Say what came of one hunt."""
    if one.error:
        return f"{one.bug:<52} {one.error}"
    if not one.found:
        return f"{one.bug:<52} not found in {one.runs:,} runs, {one.seconds:.0f} s"
    by = f"{one.test}, {one.strategy}"
    case = f", shrunk to {one.calls} calls, {one.switches} switches" if one.calls else ""
    return f"{one.bug:<52} {one.signature} after {one.runs:,} runs, {one.seconds:.1f} s ({by}){case}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="which planted bugs does luf stress find?")
    parser.add_argument("--only", nargs="+", default=(), help="names of bugs; * stands for anything")
    parser.add_argument("--kind", choices=KINDS, help="of one kind alone")
    parser.add_argument("--every", type=int, default=1, help="each so many-th alone; historic ones are all")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each bug, compiling apart")
    parser.add_argument("--without", action="append", default=[], choices=PARTS, help="leave a part out")
    parser.add_argument("--jobs", type=int, default=1, help="bugs at a time")
    parser.add_argument("--cores", type=int, default=1, help="of each hunt")
    parser.add_argument("--no-shrink", action="store_true", help="do not make the cases smaller")
    parser.add_argument("--journal", default=str(JOURNAL), help="where hunts are noted")
    parser.add_argument("--write", action="store_true", help="write docs/planted.md, and hunt nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
