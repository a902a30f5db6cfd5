"""A small program of calls as data: what every thread of every process does, phase by phase, and the machine
that it runs on.

The same data is run in this process, and written as the two TOML files that `luf run` reads. All threads of a
process meet between two phases.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

from emulator.experiment import run_design
from emulator.judge.bad_access import BadAccess
from emulator.machine import load_machine
from emulator.supervisor import RunStopped
from workloads import Region, Script, Workload

Step = tuple[Any, ...]  # a call and its arguments
Phases = tuple[tuple[Step, ...], ...]  # what one thread does before the first meeting, between two ...


@dataclass(frozen=True, slots=True)
class Part:
    """One process: its threads, each with as many phases as the others; a forked one has one thread."""

    name: str
    regions: tuple[Region, ...]
    threads: tuple[Phases, ...]
    forked: bool = False
    cpus: tuple[int, ...] = ()

    def steps(self, thread: int) -> list[Step]:
        """Give the steps of a thread, with its meetings."""
        steps: list[Step] = []
        for number, phase in enumerate(self.threads[thread]):
            if number and len(self.threads) > 1:
                steps.append(("meet", f"{self.name} {number}", len(self.threads)))
            steps += phase
        return steps


@dataclass(frozen=True, slots=True)
class Program:
    """Processes, the machine, and how the run is scheduled."""

    parts: tuple[Part, ...]
    like: str
    cpus: int
    changes: dict[str, Any] = field(default_factory=dict)
    leases: int = 1
    seed: int = 1

    def workload(self) -> Workload:
        """Make the workload, checked."""
        script = Script("program")
        for part in self.parts:
            threads = [_thread(part.steps(i)) for i in range(len(part.threads))]
            script.process(part.name, threads, part.regions, part.cpus, part.forked)
        return script.workload()

    def machine(self) -> Any:
        """Load the machine."""
        return load_machine(self.like, scale=1, cpus=self.cpus, overrides=self.changes)

    def workload_toml(self) -> str:
        """Write the workload as `luf run --workload` reads it."""
        lines = []
        for part in self.parts:
            lines += ["[[process]]", f"name = {json.dumps(part.name)}"]
            lines += ["forked = true"] * part.forked
            lines += [f"cpus = {list(part.cpus)}"] * bool(part.cpus)
            lines.append("threads = [")
            for thread in range(len(part.threads)):
                steps = ",\n     ".join(json.dumps(step) for step in part.steps(thread))
                lines.append(f"    [{steps}],")
            lines.append("]")
            for region in part.regions:
                lines += ["[[process.region]]", *_region_toml(region)]
            lines.append("")
        return "\n".join(lines)

    def machine_toml(self) -> str:
        """Write the machine as `luf run --machine` reads it."""
        lines = [f"like = {json.dumps(self.like)}", f"cpus = {self.cpus}", "default_scale = 1.0"]
        for key, value in self.changes.items():
            if key != "nodes":
                lines.append(f"{key} = {json.dumps(value)}")
        for node in self.changes.get("nodes", []):
            lines += ["", "[[nodes]]", *_toml_pairs(node)]
            for zone in node["zones"]:
                lines += ["[[nodes.zones]]", *_toml_pairs(zone)]
        return "\n".join(lines) + "\n"

    def keep(self, folder: Path, name: str, design: str) -> str:
        """Write both files; returns the command that runs them."""
        folder.mkdir(parents=True, exist_ok=True)
        workload, machine = folder / f"{name}.toml", folder / f"{name}-machine.toml"
        workload.write_text(self.workload_toml(), encoding="utf-8")
        machine.write_text(self.machine_toml(), encoding="utf-8")
        how = f"--machine {machine} --leases {self.leases} --seed {self.seed}"
        return f"luf run {design} --workload {workload} {how}"


def _thread(steps: list[Step]) -> Any:
    return lambda t: (_made(t, step) for step in steps)


def _made(t: Any, step: Step) -> Any:
    """Make the rows of a step; those of `until` are made of steps, too."""
    call, *arguments = step
    if call == "until":
        flag, inner = arguments
        return t.until(flag, [_made(t, one) for one in inner])
    return getattr(t, call)(*arguments)


def _toml_pairs(table: dict[str, Any]) -> list[str]:
    return [f"{key} = {json.dumps(value)}" for key, value in table.items() if not isinstance(value, list)]


def _region_toml(region: Region) -> list[str]:
    default = Region(region.name, region.pages)
    lines = [f"name = {json.dumps(region.name)}", f"pages = {region.pages}"]
    for key in ("file", "file_offset", "writable", "shared", "executable", "mapped", "folio_order"):
        value = getattr(region, key)
        if value != getattr(default, key):
            lines.append(f"{key} = {json.dumps(value)}")
    return lines


# --- what is wrong with a run -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Finding:
    """What was wrong: `kind` is the same for runs that show the same, `text` says it of this run."""

    kind: str
    text: str


def run(program: Program, design: str) -> Finding | None:
    """Run a program under a design; None if oracle and audit have nothing to say."""
    return judged(lambda: run_workload(program.workload(), program, design))


def run_workload(workload: Workload, program: Program, design: str) -> Any:
    """Run a workload on the machine of a program."""
    return run_design(design, program.machine(), workload, leases=program.leases, seed=program.seed)


def judged(execute: Any) -> Finding | None:
    """Say what is wrong with a run. A program is well-typed, so that it is stopped is a finding, too."""
    try:
        result = execute()
    except BadAccess as error:
        return Finding(f"BadAccess: {_general(str(error).rpartition(' step ')[2])}", str(error))
    except RunStopped as error:
        return Finding(f"{type(error).__name__}: {_general(str(error))}", str(error))
    except Exception as error:  # noqa: BLE001 (whatever else a well-typed program raises is a finding)
        return Finding(f"{type(error).__name__}: {_general(str(error))}", f"{type(error).__name__}: {error}")
    for violation in result.violations:
        kind = f"violation {violation['kind']}"
        return Finding(kind, f"{kind}: {str(violation)[:2000]}")
    if result.unaccounted:
        lines = [f"{name}: expected {a}, found {b}" for name, (a, b) in result.unaccounted.items()]
        return Finding(f"audit {', '.join(result.unaccounted)}", "\n".join(lines))
    return None


def _general(text: str) -> str:
    """Leave out what differs from run to run."""
    return re.sub(r"\d+", "N", re.sub(r"0x[0-9a-f]+|'[^']*'", "X", text.split("\n")[0]))[:160]


# --- making a program that shows something smaller ----------------------------------------------------------

# what the later steps of a program may rely on: without it, it may be stopped with good reason
MAPPING_CALLS = {"mmap", "munmap", "place", "mprotect", "mremap", "fork", "exit"}


def shrunk(program: Program, finding: Finding, design: str, runs: int = 150) -> Program:
    """Leave out what is not needed for the same finding: processes, threads, phases, steps. At most `runs`
    runs.
    """
    stopped = finding.kind.startswith("BadAccess")
    left, progress = runs, True
    while progress and left > 0:
        progress = False
        for smaller in _smaller(program, MAPPING_CALLS if stopped else set()):
            if left <= 0:
                break
            left -= 1
            found = run(smaller, design)
            if found and found.kind == finding.kind:
                program, progress = smaller, True
                break
    return program


def _smaller(program: Program, keep: set[str]) -> Any:
    """Give programs with one thing less, the largest things first."""
    for number, part in enumerate(program.parts):
        if len(program.parts) > 1 and not keep:
            yield replace(program, parts=program.parts[:number] + program.parts[number + 1 :])
        if len(part.threads) > 1 and not keep:
            for thread in range(len(part.threads)):
                left = part.threads[:thread] + part.threads[thread + 1 :]
                cpus = part.cpus[:thread] + part.cpus[thread + 1 :]
                yield _with_part(program, number, replace(part, threads=left, cpus=cpus))
        phases = len(part.threads[0])
        for first in range(phases - 1):  # two phases become one
            threads = tuple((*t[:first], t[first] + t[first + 1], *t[first + 2 :]) for t in part.threads)
            if not keep:
                yield _with_part(program, number, replace(part, threads=threads))
    for number, part in enumerate(program.parts):
        for thread, phases_of in enumerate(part.threads):
            for at, steps in enumerate(phases_of):
                size = len(steps)
                while size:
                    for first in range(0, len(steps), size):
                        gone = steps[first : first + size]
                        if not any(step[0] in keep for step in gone):
                            fewer = steps[:first] + steps[first + size :]
                            new = (*phases_of[:at], fewer, *phases_of[at + 1 :])
                            threads = (*part.threads[:thread], new, *part.threads[thread + 1 :])
                            yield _with_part(program, number, replace(part, threads=threads))
                    size //= 2


def _with_part(program: Program, number: int, part: Part) -> Program:
    return replace(program, parts=(*program.parts[:number], part, *program.parts[number + 1 :]))


def generated(make: Callable[[Random], Any], look: Callable[[Any], None], seed: int, count: int) -> None:
    """Show `look` so many things that `make` makes by chance, the same ones for the same seed."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded
    from hypothesis import strategies as st

    plain = settings(
        max_examples=count, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    # with draws of its own hypothesis prefers what is small and simple, of which there is enough
    seeded(seed)(plain(given(st.randoms(use_true_random=True).map(make))(look)))()
