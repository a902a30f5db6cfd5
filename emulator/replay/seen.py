"""What a run showed, as far as a replay or a shrinker asks: its signature, by which two runs show the same
bug, and what repeats it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from designs.ready import ReadyDesign
from emulator.litmus.verdict import FORBIDDEN, Run, judge
from emulator.replay.case import Case
from emulator.stress.arena import Arena, Arenas
from emulator.stress.outcome import Outcome
from emulator.stress.signature import signature_of


@dataclass(frozen=True, slots=True)
class Seen:
    """One run. `signature` is empty if nothing was found; `fingerprint` is equal for runs in which the same
    happened, event by event; `switches` are those that its schedule came to.
    """

    signature: str = ""
    fingerprint: str = ""
    sentence: str = ""  # why it was stopped, or what does not add up
    violation: Mapping[str, Any] = field(default_factory=dict)
    switches: tuple[tuple[int, int, int], ...] = ()


def runner(arena: Arena | Arenas, design: ReadyDesign) -> Callable[[Case], Seen]:
    """Give what runs a case in this arena, under this design."""

    def run(case: Case) -> Seen:
        return seen_in(arena.run(case.experiment(design=design)), case)

    return run


def seen_in(outcome: Outcome, case: Case) -> Seen:
    """Give what a run of a case showed: also an outcome that its litmus test forbids."""
    signature = signature_of(outcome)
    if not signature and not outcome.is_void and case.test:
        verdict = judge(case.litmus(), Run(outcome.counters))
        signature = f"forbidden outcome: {verdict.why}" if verdict.what == FORBIDDEN else ""
    return Seen(
        signature,
        outcome.fingerprint,
        "; ".join(
            filter(None, (outcome.sentence, *outcome.unaccounted, *outcome.rule_findings, *outcome.findings))
        ),
        outcome.violations[0] if outcome.violations else {},
        tuple(outcome.switches),
    )
