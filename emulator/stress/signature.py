"""By what two findings are the same: the kind of a violation, the access, and the call that took the
translation away; of a run that was stopped, and of what does not add up, the sentence without its numbers.
"""

from __future__ import annotations

import re
from typing import Any

from emulator.stress.outcome import LIVELOCKED, STUCK, Outcome

NUMBER = re.compile(r"\b(?:0x[0-9a-f_]+|[0-9][0-9,_.]*)\b|\d+")
SENTENCE_MAX = 160
WAITING = {STUCK: "deadlock", LIVELOCKED: "livelock"}


def signature_of(outcome: Outcome) -> str:
    """Give the signature of the first thing that was found; empty if nothing was."""
    if outcome.is_clean:
        return ""
    if outcome.violations:
        return _of_violation(outcome.violations[0])
    if outcome.ended in WAITING:  # what CPUs wait for depends on the schedule
        return WAITING[outcome.ended]
    if outcome.unaccounted:
        return f"unaccounted: {_plain(outcome.unaccounted[0])}"
    if outcome.rule_findings:
        return f"rule: {_plain(outcome.rule_findings[0])}"
    if outcome.findings:
        return f"finding: {_plain(outcome.findings[0])}"
    return f"{outcome.ended}: {_plain(outcome.sentence)}"


def _of_violation(violation: Any) -> str:
    parts = [str(violation["access"])] if "access" in violation else []
    if "taken" in violation:
        parts.append(f"taken away by {violation['taken']['call']}")
    return ": ".join(filter(None, (str(violation["kind"]), ", ".join(parts))))


def _plain(sentence: str) -> str:
    return NUMBER.sub("N", sentence.partition("\n")[0])[:SENTENCE_MAX]
