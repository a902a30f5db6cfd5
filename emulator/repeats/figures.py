"""The figures by which repeated runs are compared: those of the screen, one value a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from emulator.report import talk
from emulator.report.text import seconds, share_text
from emulator.result import Result


class Figure(NamedTuple):
    """One figure: the name that tools know it by, what it is called on the screen, how a value of it is
    shown, and the talk's change of it from linux to luf, as a fraction.
    """

    name: str
    label: str
    value: Callable[[Result], float | None]  # None: this run has none
    shown: Callable[[float], str]
    talk: float | None = None


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _runtime(value: float) -> str:
    return seconds(value / 1e9)


FIGURES = (
    Figure("tlb_shootdowns", "TLB shootdowns", lambda run: run.tlb_shootdowns, _count,
           talk.change(talk.TLB_SHOOTDOWNS)),
    Figure("ipi_messages", "  sent as messages", lambda run: run.ipi.messages, _count),
    Figure("dtlb_load_misses", "dTLB-load-misses", lambda run: run.dtlb_load_misses, _count,
           talk.change(talk.DTLB_LOAD_MISSES)),
    Figure("dtlb_store_misses", "dTLB-store-misses", lambda run: run.dtlb_store_misses, _count,
           talk.change(talk.DTLB_STORE_MISSES)),
    Figure("itlb_load_misses", "iTLB-load-misses", lambda run: run.itlb_load_misses, _count,
           talk.change(talk.ITLB_LOAD_MISSES)),
    Figure("runtime_mean_ns", "runtime", lambda run: run.runtime_mean_ns or None, _runtime,
           talk.runtime_change()),
    Figure("unmapped_read_only", "unmapped read-only", lambda run: run.unmapped_read_only, share_text),
)  # fmt: skip


def samples(runs: Sequence[Result]) -> dict[str, list[float]]:
    """Give the values of each figure, one a run: only of runs that came to their end, and only figures that
    each of these has.
    """
    ended = [run for run in runs if not run.stopped]
    found = {}
    for figure in FIGURES:
        values = [value for run in ended if (value := figure.value(run)) is not None]
        if values and len(values) == len(ended):
            found[figure.name] = values
    return found
