"""What a run in an arena came to, as plain data that goes through a pipe: how it ended, what was found, and
what it did.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from allocator.panic import CUT_SHORT, OUT_OF_MEMORY, TIME_IS_OVER
from cpus.ram import POINTS
from designs.design import DesignError
from emulator.counts import fingerprint, gauges, scheduled
from emulator.exercised import exercised
from emulator.findings import Violation
from emulator.judge.audit import examine
from emulator.judge.luf_findings import debug_findings
from emulator.judge.witness import violations
from emulator.stopped import Livelock, Panicked, RunStopped, Stuck
from workloads.rows import Workload

FINISHED, VIOLATED, PANICKED, STUCK, LIVELOCKED, FAULTY, ENDLESS = (
    "finished", "violated", "panicked", "stuck", "livelocked", "faulty", "endless",
)  # fmt: skip
# a machine that is too small for its workload, or one that goes on for ever: nobody's fault
VOID = (OUT_OF_MEMORY, TIME_IS_OVER, CUT_SHORT)


class Endless(RunStopped):
    """A run took more host time than it was given; it moved to the last."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run. `sentence` says why it did not finish, if it did not; `unaccounted` what the audit of a
    finished one misses, a sentence each, `findings` what the design itself or its debug feature found.
    """

    ended: str
    sentence: str = ""
    panic: int = 0
    violations: list[Violation] = field(default_factory=list)
    windows: int = 0  # that vanilla leaves open, too (docs/coherence.md)
    unaccounted: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)  # counters, and the design's own as DESIGN.NAME
    # rare branches -> times, and those that the design's safety depends on (emulator/exercised.py)
    exercised: dict[str, int] = field(default_factory=dict)
    relies_on: tuple[str, ...] = ()
    fingerprint: str = ""
    virtual_ns: int = 0
    handovers: int = 0
    # of a run with a schedule, as in a Result
    switches: list[tuple[int, int, int]] = field(default_factory=list)
    switches_lost: int = 0
    points: int = 0
    cpu_points: list[int] = field(default_factory=list)
    switch_places: list[str] = field(default_factory=list)
    rule_findings: list[str] = field(default_factory=list)
    record: Any = None  # of a schedule that `records`, if there was room: its points (cpus/strategies.py)
    seconds: dict[str, float] = field(default_factory=dict)  # host time: lay out, fork, run, judge

    @property
    def is_void(self) -> bool:
        """Does it say nothing about the design? Its machine was too small for it, or it was cut short."""
        return self.ended == ENDLESS or self.panic in VOID

    @property
    def is_cut_short(self) -> bool:
        """Was it ended because it went on for too long?"""
        return self.ended == ENDLESS or self.panic == CUT_SHORT

    @property
    def is_clean(self) -> bool:
        """Was nothing found?"""
        found = self.violations or self.unaccounted or self.findings or self.rule_findings
        return not found and (self.ended == FINISHED or self.is_void)


def judged(
    ram: Any, workload: Workload, design: Any, ended: str | RunStopped, *, brief: bool = False
) -> dict[str, Any]:
    """Read what a run that is over has found and done, as fields of an Outcome; `brief`: without the list of
    its hand-overs.
    """
    statistics = _statistics(ram, design) if ended == FINISHED else {}
    figures = dict(zip((one.name for one in ram.layout.counters), ram.counter.sum(axis=0).tolist()))
    # a run that did not finish has no figures of the design
    relies_on = [name for name in design.relies_on if name in figures or name in statistics]
    taken = exercised(ram.layout.counters, figures, relies_on, statistics)
    figures |= gauges(ram)
    own = design.name.partition(":")[0]
    figures |= {f"{own}.{key}": value for key, value in statistics.items() if type(value) is int}
    found: dict[str, Any] = {
        "ended": ended if isinstance(ended, str) else _ended(ended),
        "sentence": "" if isinstance(ended, str) else str(ended),
        "panic": ended.code if isinstance(ended, Panicked) else 0,
        "windows": int(ram.run_windows[0]),
        "violations": violations(ram, workload, design.name),
        "findings": list(statistics.get("findings", ())),
        "counters": figures,
        "exercised": taken,
        "relies_on": tuple(relies_on),
        "fingerprint": fingerprint(ram),
        "virtual_ns": int(ram.cpu_clock.max()),
        "handovers": int(ram.run_handovers[0]),
    }
    if ram._type.kind == POINTS:
        found |= scheduled(ram, brief=brief)
        if ram.records and int(ram.run_touched[0]) <= ram.nr_touched:
            found["record"] = ram.touched[: int(ram.run_touched[0])].copy()
    if ram.lufd:
        found["findings"] += [f"debug-luf: {one['site']} in {one['function']}" for one in
                              debug_findings(ram, workload)]  # fmt: skip
    if ended == FINISHED:
        found["unaccounted"] = [check.text for check in examine(ram) if check.wrong]
    return found


def _statistics(ram: Any, design: Any) -> dict[str, Any]:
    try:
        found: dict[str, Any] = design.statistics(ram)
    except DesignError as error:
        return {"findings": [f"its statistics cannot be had: {error}"]}
    return found


def _ended(stopped: RunStopped) -> str:
    if isinstance(stopped, Panicked):
        return PANICKED
    if isinstance(stopped, Endless):
        return ENDLESS
    if isinstance(stopped, Livelock):
        return LIVELOCKED
    return STUCK if isinstance(stopped, Stuck) else FAULTY
