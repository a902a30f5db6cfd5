"""One hunt: `luf stress` in a copy of the sources with one planted bug, and what came of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cpus.source_hash import source_hash
from tests.planted.affected import KERNELS, affected_modules
from tests.planted.bugs import ROOT, Bug, plant

STARTED = Path(__file__).with_name("started.py")
COMPILING_S = 900  # at most, beside the hunt itself
CLEAN, FOUND = 0, 1  # exit codes of stress
REPLAYS = 100  # of a small case

Counts = Callable[[Mapping[str, Any]], bool]


@dataclass(frozen=True, slots=True)
class Hunt:
    """What stress said about one bug. `runs` and `seconds` are those until the first finding, or all if there
    was none; `calls` and `switches` are what is left of its case when it is shrunk, `case` a replay file.
    `error`: stress could not do its work.
    """

    bug: str
    without: tuple[str, ...]
    limit: float
    found: bool
    signature: str = ""
    strategy: str = ""
    test: str = ""
    runs: int = 0
    seconds: float = 0.0
    compiling: float = 0.0
    calls: int = 0
    switches: int = 0
    replays: str = ""
    again: str = ""
    case: str = ""
    error: str = ""
    cores: int = 1  # that it had, at most


def hunt(
    bug: Bug, seconds: float, *, without: tuple[str, ...] = (), cores: int = 1, shrink: bool = True
) -> Hunt:
    """Plant the bug in a folder of its own, run stress there until it finds something or time is over. What
    the sources show without the bug does not count: then all is looked for that there is.
    """
    as_found = () if shrink else ("--no-shrink",)
    with tempfile.TemporaryDirectory(prefix="luf-planted-") as place:
        folder = plant(bug, Path(place, "copy"))
        hashes = Path(place, "hashes.json")
        hashes.write_text(json.dumps(unchanged(bug, folder)), encoding="utf-8")
        for first in (("--first",), ()):
            more = ("--jobs", str(cores), *first, *as_found)
            report, error = stressed(bug.design, seconds, folder, hashes, without, more)
            if error:
                return Hunt(bug.name, without, seconds, False, error=error, cores=cores)
            one = from_report(bug.name, without, seconds, report, lambda found: not shown_without(found, bug))
            if one.found or not report["designs"][0]["findings"]:
                break
        if one.case:
            one = replace(one, replays=replayed(one.case, folder, hashes))
        return replace(one, cores=cores)


def stressed(
    design: str, seconds: float, folder: Path, hashes: Path, without: tuple[str, ...], more: tuple[str, ...]
) -> tuple[dict[str, Any], str]:
    """Run stress with the sources of a folder; its report, and what kept it from making one."""
    report = hashes.with_name("report.json")
    report.unlink(missing_ok=True)
    words = ["stress", design, *more, "--seconds", f"{seconds:g}", "--json", str(report)]
    for part in without:
        words += ["--without", part]
    code, said = _luf(words, folder, hashes, seconds + COMPILING_S)
    if code not in (CLEAN, FOUND) or not report.is_file():
        return {}, f"exit code {code}: {' | '.join(said[-3:])[-500:]}"
    found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return found, ""


def replayed(case: str, folder: Path, hashes: Path) -> str:
    """Replay a small case with the sources of a folder: how many runs did the same, event by event."""
    file = hashes.with_name("case.toml")
    file.write_text(case, encoding="utf-8")
    _, said = _luf(["replay", str(file), "--times", str(REPLAYS)], folder, hashes, COMPILING_S)
    if any("the same in all runs, and as stored" in text for text in said):
        return f"{REPLAYS} of {REPLAYS}"
    return next((text.split(maxsplit=1)[1].partition(":")[0] for text in said if text.startswith("seen")), "")


def shown_without(finding: Mapping[str, Any], bug: Bug) -> bool:
    """Does the job of a finding show the same in the sources as they are?"""
    with tempfile.TemporaryDirectory(prefix="luf-planted-") as place:
        file = Path(place, "finding.json")
        file.write_text(json.dumps({**finding, "design": bug.design}), encoding="utf-8")
        command = [sys.executable, "-m", "tests.planted.unchanged", str(file)]
        code, said = _carried_out(command, ROOT, COMPILING_S)
    if code or not said:
        raise RuntimeError(f"{bug.name}: without the bug: exit code {code}: {' | '.join(said[-3:])}")
    return int(said[-1]) > 0


def from_report(
    name: str, without: tuple[str, ...], limit: float, report: dict[str, Any], counts: Counts
) -> Hunt:
    """Read what stress has reported: its first finding that counts."""
    design, compiling = report["designs"][0], report["compile_seconds"]
    for one in sorted(design["findings"], key=lambda one: one["seconds_until"]):
        if counts(one):
            break
    else:
        return Hunt(
            name, without, limit, False, runs=design["runs"], seconds=design["seconds"], compiling=compiling
        )
    small = one.get("shrunk") or {}
    return Hunt(
        name, without, limit, True, one["signature"], one["strategy"], one["workload"], one["runs_until"],
        one["seconds_until"], compiling, small.get("calls", 0), small.get("switches", 0),
        " of ".join(str(count) for count in small.get("replays", ())), one["again"], small.get("text", ""),
    )  # fmt: skip


def unchanged(bug: Bug, folder: Path) -> dict[str, str]:
    """Give the hashes of those modules in the copy whose code is what it is without the bug."""
    affected = affected_modules(ROOT, bug.sources())
    found = {}
    for room in KERNELS:
        for path in (ROOT / room).rglob("*.py"):
            if (file := str(path.relative_to(ROOT))) not in affected:
                found[str(folder / file)] = source_hash(str(path))
    return found


def _luf(words: Sequence[str], folder: Path, hashes: Path, bound: float) -> tuple[int, list[str]]:
    """Run a command of luf with the sources of a folder; its exit code, and what it said."""
    return _carried_out([sys.executable, "-P", str(STARTED), str(hashes), *words], folder, bound)


def _carried_out(command: Sequence[str], folder: Path, bound: float) -> tuple[int, list[str]]:
    """Run a command in a folder, with its sources; its exit code, and the lines that it said."""
    environment = os.environ | {"PYTHONPATH": str(folder)}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=said, stderr=said, start_new_session=True
        )
        try:
            code = process.wait(bound)
        except subprocess.TimeoutExpired:
            code = -signal.SIGKILL
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        said.seek(0)
        return code, said.read().strip().splitlines()
