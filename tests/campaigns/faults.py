"""Disturb luf in every way that a host knows, at every moment of a run, and look at what it leaves.

    python -m tests.campaigns.faults
    python -m tests.campaigns.faults --only 'TERM * run *' --runs 20

Signals to each of its processes and to all, full disks, limits, odd surroundings (tests/campaigns/disturbing/
cases.py) at moments that the program itself shows (moments.py). Afterwards nothing may be left (processes,
sockets, temporary files, half-written folders), the exit code is one of those that are documented, there is
one sentence and no traceback, and what was finished is there (afterwards.py). A line for each case, a table;
exit code 1 if one is at fault.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from cpus.code_cache import cache_root
from tests.campaigns.disturbing.afterwards import faults, half_written
from tests.campaigns.disturbing.cases import COMMANDS, NOBODY, Case, cases, possible
from tests.campaigns.disturbing.program import ROOT, Places, Program

OTHERS_CACHE = "cache-of-another-user"
NO_MOMENT = "skipped: there was no such moment, or process"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a case: `skipped` says why it was not tried, or that its moment never came."""

    case: Case
    code: int | None = None
    wrong: Sequence[str] = ()
    skipped: str = ""
    said: str = ""
    seconds: float = 0.0

    def line(self) -> str:
        verdict = self.skipped or "; ".join(self.wrong) or "good"
        return f"{self.case.name:<46} {self.seconds:>5.1f} s  code {self.code!s:<5} {verdict}"


def tried(case: Case, base: Path) -> Outcome:
    """Try one case in folders of its own."""
    if why := possible(case):
        return Outcome(case, skipped=f"skipped: {why}")
    began = time.monotonic()
    places = Places(Path(tempfile.mkdtemp(prefix="f", dir=base)))
    places.make()
    try:
        if case.lay:
            case.lay(places)
        program = Program(
            places, case.arguments, _environment(case, places, base), prepare=case.prepare, luf=case.luf,
            stdout=case.stdout, stderr=case.stderr,
        )  # fmt: skip
        reached = case.act is None or case.act(program)
        code = program.end()
        if case.ending.swept and half_written(places):
            Program(places, COMMANDS["run"], _environment(case, places, base)).end()
        wrong = list(faults(program, code, case.ending))
        skipped = "" if reached or wrong else NO_MOMENT
        return Outcome(case, code, wrong, skipped, program.text()[-2000:], time.monotonic() - began)
    finally:
        if case.tidy:
            case.tidy(places)
        shutil.rmtree(places.base, ignore_errors=True)


def _environment(case: Case, places: Places, base: Path) -> dict[str, str]:
    """Give what a shell has, and of ours only what a case needs."""
    others = base / OTHERS_CACHE
    known: dict[str, str | None] = {
        "PATH": os.environ.get("PATH", os.defpath),
        "PYTHONPATH": str(ROOT),
        "HOME": str(places.home),
        "TMPDIR": str(places.temporary),
        "LANG": "C.UTF-8",
        "TERM": "xterm",
        "LUF_CACHE_DIR": str(others if "setpriv" in case.luf else cache_root()),
    }
    return {name: value for name, value in (known | dict(case.environment)).items() if value is not None}


def campaign(chosen: Sequence[Case], jobs: int, base: Path) -> list[Outcome]:
    """Try cases, some side by side; a line for each, and what was said by those that are at fault."""
    found: list[Outcome] = []
    with ThreadPoolExecutor(jobs) as pool:
        for outcome in pool.map(lambda case: tried(case, base), chosen):
            found.append(outcome)
            print(f"{len(found):>3}/{len(chosen)} {outcome.line()}", flush=True)
            if outcome.wrong:
                print(_quoted(outcome.said), flush=True)
    return found


def _quoted(text: str) -> str:
    lines = [line for line in text.replace("\r", "\n").split("\n") if line.strip()]
    return "".join(f"    | {line[:160]}\n" for line in lines[-6:])


def table(found: Sequence[Outcome]) -> str:
    """Count the cases by what was done, and how they ended."""
    kinds: dict[str, Counter[str]] = {}
    for one in found:
        ended = "skipped" if one.skipped else "at fault" if one.wrong else f"code {one.code}"
        kinds.setdefault(" ".join(one.case.name.split()[:2]), Counter())[ended] += 1
    lines = [
        f"{kind:<28} " + ", ".join(f"{name}: {n}" for name, n in ends.most_common())
        for kind, ends in kinds.items()
    ]
    tried_ = sum(not one.skipped for one in found)
    bad = sum(bool(one.wrong) for one in found)
    return "\n".join([*lines, "", f"{tried_} runs, {bad} at fault, {len(found) - tried_} skipped"])


def _cache_of_another_user(base: Path) -> None:
    """A copy of the compiled code that belongs to nobody, who would have to compile it all."""
    if os.getuid() != 0:
        return
    shutil.copytree(cache_root(), base / OTHERS_CACHE)
    subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", base / OTHERS_CACHE], check=True)
    (base / OTHERS_CACHE).chmod(0o700)


def main(arguments: list[str] | None = None) -> int:
    """Run the campaign as the options say."""
    parser = argparse.ArgumentParser(
        description="disturb luf at every moment of a run, and look at what it leaves"
    )
    parser.add_argument("--runs", type=int, help="at most so many cases, evenly spread; default: all")
    parser.add_argument("--only", default="*", help="cases whose name matches, such as 'TERM * run *'")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--list", action="store_true", help="print the names of the cases, and leave")
    options = parser.parse_args(arguments)
    chosen = [case for case in cases(int(time.time())) if fnmatchcase(case.name, options.only)]
    if options.runs and options.runs < len(chosen):
        chosen = [chosen[i * len(chosen) // options.runs] for i in range(options.runs)]
    if options.list:
        print("\n".join(case.name for case in chosen))
        return 0
    base = Path(tempfile.mkdtemp(prefix="luf-faults-"))
    base.chmod(0o755)
    try:
        if any("setpriv" in case.luf for case in chosen):
            _cache_of_another_user(base)
        found = campaign(chosen, options.jobs, base)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    print(table(found))
    return 1 if any(one.wrong for one in found) else 0


if __name__ == "__main__":
    sys.exit(main())
