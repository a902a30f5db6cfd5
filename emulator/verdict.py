"""How every screen ends: clean, or not clean and by whom, and the exit code that says so too. Imports
nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from emulator.golden.result import Fidelity
    from emulator.repeats.result import Repeats
    from emulator.result import Comparison, Result
    from emulator.stopped import RunStopped

CLEAN, DIRTY, BAD_INPUT, FAILED = 0, 1, 2, 3
LABEL, WIDTH = "verdict", 20  # of the labels of luf run, compare and report


class Verdict(NamedTuple):
    """An exit code, and the sentence that goes with it."""

    code: int
    said: str

    def line(self, width: int = WIDTH) -> str:
        """Return the last line of a screen whose labels take `width` columns."""
        return f"{LABEL:<{width}}{self.said}\n"


def _verdict(code: int, why: str) -> Verdict:
    head = f"{'clean' if code == CLEAN else 'not clean'}, exit code {code}"
    return Verdict(code, head + (f": {why}" if why else ""))


def of_comparison(comparison: Comparison, code: int = DIRTY) -> Verdict:
    """Judge what several designs did: a design is named with everybody who found fault with it, or with why
    it has no result. `code` is the exit code if not all is clean.
    """
    blamed = [f"{run.design} by {_by(run)}" for run in comparison.runs if run.blamed_by]
    blamed += [f"{design} has no result ({why})" for design, why in comparison.missing.items()]
    if blamed:
        return _verdict(code, "; ".join(blamed))
    said = []
    for check, what in (("off", ""), ("states", "accesses of ")):
        if unjudged := [run.design for run in comparison.runs if run.check == check]:
            said.append(f"the oracle did not judge {what}{', '.join(unjudged)}")
    return _verdict(CLEAN, "; ".join(said))


def of_repeats(repeats: Repeats, code: int = DIRTY) -> Verdict:
    """Judge what several runs of each design did: a design is named once, with how many of its runs somebody
    found fault with, and the first of them.
    """
    blamed = []
    for design in repeats.designs:
        runs = repeats.of(design)
        if bad := [run for run in runs if run.blamed_by]:
            where = f"in {len(bad):,} of {len(runs):,} runs, the first with seed {bad[0].seed}"
            blamed.append(f"{design} by {_by(bad[0])} {where}")
    if repeats.missing:
        first, why = next(iter(repeats.missing.items()))
        more = f" and {len(repeats.missing) - 1:,} more" * (len(repeats.missing) > 1)
        blamed.append(f"{first}{more}: no result ({why})")
    if blamed:
        return _verdict(code, "; ".join(blamed))
    unjudged = {run.design: None for run in repeats.runs if run.check == "off"}
    return _verdict(CLEAN, f"the oracle did not judge {', '.join(unjudged)}" if unjudged else "")


def _by(run: Result) -> str:
    return " and ".join(f"{who} ({what})" for who, what in run.blamed_by.items())


def of_stopped(stopped: RunStopped) -> Verdict:
    """Judge a run that could not be finished. A deadlock is what a design did, as a violation is, and so is
    an exception or a crash in a hook; the rest is the emulator's failure.
    """
    return _verdict(DIRTY if stopped.by_design else FAILED, f"{stopped.design} by {stopped.by}".strip())


def of_fidelity(fidelity: Fidelity) -> Verdict:
    """Judge a comparison with a real kernel: every difference counts, explained or not."""
    if fidelity.agrees:
        return _verdict(CLEAN, "")
    count = len(fidelity.differences)
    unexplained = sum(not one.explanation for one in fidelity.differences)
    found = f"linux by the recording ({count:,} difference{'s' * (count != 1)}, {unexplained:,} unexplained)"
    return _verdict(DIRTY, found if count else "nothing was judged")
