"""One hunt: `luf stress` in a copy of the sources with one planted bug, and what came of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpus.source_hash import source_hash
from tests.planted.affected import KERNELS, affected_modules
from tests.planted.bugs import ROOT, Bug, plant

STARTED = Path(__file__).with_name("started.py")
COMPILING_S = 900  # at most, beside the hunt itself
CLEAN, FOUND = 0, 1  # exit codes of stress


@dataclass(frozen=True, slots=True)
class Hunt:
    """What stress said about one bug. `runs` and `seconds` are those until the first finding, or all if there
    was none; `calls` and `switches` are what is left of its case when it is shrunk. `error`: stress could not
    do its work.
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
    error: str = ""


def hunt(
    bug: Bug,
    seconds: float,
    *,
    known: Collection[str] = (),
    without: tuple[str, ...] = (),
    jobs: int = 1,
    shrink: bool = True,
) -> Hunt:
    """Plant the bug in a folder of its own, run stress there until it finds something or time is over. What
    it finds without any bug (`known`) does not count.
    """
    as_found = () if shrink else ("--no-shrink",)
    with tempfile.TemporaryDirectory(prefix="luf-planted-") as place:
        folder = plant(bug, Path(place, "copy"))
        hashes = Path(place, "hashes.json")
        hashes.write_text(json.dumps(unchanged(bug, folder)), encoding="utf-8")
        for first in (("--first",), ()):
            report, error = stressed(
                bug.design, seconds, folder, hashes, without, ("--jobs", str(jobs), *first, *as_found)
            )
            one = from_report(bug.name, without, seconds, report, known, error)
            if one.found or error or not report["designs"][0]["findings"]:
                break
        return one


def known_findings(design: str, seconds: float, without: tuple[str, ...] = (), jobs: int = 1) -> list[str]:
    """Give the signatures of what stress finds in the sources as they are."""
    with tempfile.TemporaryDirectory(prefix="luf-planted-") as place:
        hashes = Path(place, "hashes.json")
        hashes.write_text("{}", encoding="utf-8")
        report, error = stressed(
            design, seconds, ROOT, hashes, without, ("--jobs", str(jobs), "--no-shrink"), Path(place)
        )
        if error:
            raise RuntimeError(f"stress on {design}: {error}")
        return [one["signature"] for one in report["designs"][0]["findings"]]


def stressed(
    design: str,
    seconds: float,
    folder: Path,
    hashes: Path,
    without: tuple[str, ...],
    more: tuple[str, ...],
    place: Path | None = None,
) -> tuple[dict[str, Any], str]:
    """Run stress with the sources of a folder; its report, and what kept it from making one."""
    report = hashes.with_name("report.json")
    report.unlink(missing_ok=True)
    command = [sys.executable, "-P", str(STARTED), str(hashes), "stress", design, *more]
    command += ["--seconds", f"{seconds:g}", "--json", str(report)]
    for part in without:
        command += ["--without", part]
    code, said = _carried_out(command, folder, place or folder, seconds + COMPILING_S)
    if code not in (CLEAN, FOUND) or not report.is_file():
        return {}, f"exit code {code}: {said}"
    found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return found, ""


def from_report(
    name: str,
    without: tuple[str, ...],
    limit: float,
    report: dict[str, Any],
    known: Collection[str] = (),
    error: str = "",
) -> Hunt:
    """Read what stress has reported: its first finding that is not known."""
    if error:
        return Hunt(name, without, limit, False, error=error)
    design, compiling = report["designs"][0], report["compile_seconds"]
    findings = [one for one in design["findings"] if not one["vanilla"] and one["signature"] not in known]
    if not findings:
        return Hunt(
            name, without, limit, False, runs=design["runs"], seconds=design["seconds"], compiling=compiling
        )
    first = min(findings, key=lambda one: one["seconds_until"])
    case = first.get("shrunk") or {}
    replays = " of ".join(str(count) for count in case.get("replays", ()))
    return Hunt(
        name, without, limit, True, first["signature"], first["strategy"], first["workload"],
        first["runs_until"], first["seconds_until"], compiling, case.get("calls", 0),
        case.get("switches", 0), replays, first["again"],
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


def _carried_out(command: list[str], folder: Path, place: Path, bound: float) -> tuple[int, str]:
    """Run a command with a folder's sources; its exit code, and the end of what it said."""
    environment = os.environ | {"PYTHONPATH": str(folder)}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        process = subprocess.Popen(
            command, cwd=place, env=environment, stdout=said, stderr=said, start_new_session=True
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
        lines = said.read().strip().splitlines()
    return code, " | ".join(lines[-3:])[-500:]
