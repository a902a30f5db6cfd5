"""One hunt: `luf stress` in a copy of the sources with one planted bug, and what came of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
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
    """What stress said about one bug. `runs` and `seconds` until the first finding, or in all if there was
    none; `cpu_seconds` of the host with everything but compiling beforehand; `case` what is left of it when
    it is shrunk. `error`: stress could not do its work.
    """

    bug: str
    without: tuple[str, ...]
    limit: float
    found: bool
    kind: str = ""
    strategy: str = ""
    test: str = ""
    runs: int = 0
    seconds: float = 0.0
    compiling: float = 0.0
    calls: int = 0
    switches: int = 0
    replays: str = ""
    text: str = ""
    error: str = ""


def hunt(
    bug: Bug, seconds: float, *, without: tuple[str, ...] = (), jobs: int = 1, shrink: bool = True
) -> Hunt:
    """Plant the bug in a folder of its own, run stress there until it finds something or time is over."""
    with tempfile.TemporaryDirectory(prefix="luf-planted-") as place:
        folder = plant(bug, Path(place, "copy"))
        hashes = Path(place, "hashes.json")
        hashes.write_text(json.dumps(unchanged(bug, folder)), encoding="utf-8")
        report = Path(place, "report.json")
        command = [sys.executable, "-P", str(STARTED), str(hashes), *stress(bug.design, seconds, report)]
        for part in without:
            command += ["--without", part]
        command += ["--jobs", str(jobs), *([] if shrink else ["--no-shrink"])]
        code, said, took = _carried_out(command, folder, seconds + COMPILING_S)
        if code not in (CLEAN, FOUND) or not report.is_file():
            return Hunt(bug.name, without, seconds, False, seconds=took, error=f"exit code {code}: {said}")
        return from_report(bug.name, without, seconds, json.loads(report.read_text(encoding="utf-8")))


def stress(design: str, seconds: float, report: Path) -> list[str]:
    """Give the command line: to the first finding, with a report for programs."""
    return ["stress", design, "--seconds", f"{seconds:g}", "--first", "--report", str(report)]


def from_report(name: str, without: tuple[str, ...], limit: float, report: dict[str, Any]) -> Hunt:
    """Read what stress has reported."""
    findings = report["findings"]
    hunted = {"compiling": report.get("compile_seconds", 0.0)}
    if not findings:
        return Hunt(name, without, limit, False, runs=report["runs"], seconds=report["seconds"], **hunted)
    first = findings[0]
    case = first.get("shrunk") or {}
    return Hunt(
        name, without, limit, True, kind=first["kind"], strategy=first["strategy"], test=first["test"],
        runs=first["runs"], seconds=first["seconds"], calls=case.get("calls", 0),
        switches=case.get("switches", 0), replays=case.get("replays", ""), text=first["text"], **hunted,
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


def _carried_out(command: list[str], folder: Path, bound: float) -> tuple[int, str, float]:
    """Run a command with the copy's sources; its exit code, the end of what it said, how long it took."""
    began = time.monotonic()
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
        lines = said.read().strip().splitlines()
    return code, " | ".join(lines[-3:])[-500:], time.monotonic() - began
