"""Comparisons as the kernel's test robot prints them (LKP, `lkp ncompare`): mean, standard deviation and
change in percent, a line for each counter, under the names that kernel developers search for.

Left out: counters that are 0 everywhere, and what LKP measures of the host.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence

from emulator.result import Result

VALUE, CHANGE = 18, 12
Reader = Callable[[Result], float | None]

EVENTS: dict[str, Reader] = {
    "interrupts.TLB:TLB_shootdowns": lambda run: run.tlb_shootdowns,
    "interrupts.CAL:Function_call_interrupts": lambda run: (
        sum(run.counters["irq_call"]) - run.tlb_shootdowns if "irq_call" in run.counters else None
    ),
    "perf-stat.dTLB-load-misses": lambda run: run.dtlb_load_misses,
    "perf-stat.dTLB-store-misses": lambda run: run.dtlb_store_misses,
    "perf-stat.iTLB-load-misses": lambda run: run.itlb_load_misses,
    "time.elapsed_time": lambda run: run.runtime_mean_ns / 1e9 if run.runtime_ns else None,
}


def lkp_text(runs: Sequence[Result]) -> str:
    """Return the table: a column for the first design, and two for each of the others."""
    designs = list(dict.fromkeys(run.design for run in runs))
    sides = [[run for run in runs if run.design == design and not run.stopped] for design in designs]
    widths = [VALUE, *[CHANGE + VALUE] * (len(designs) - 1)]
    text = "".join(f"{design:>{width}}" for design, width in zip(designs, widths)) + "\n"
    text += " ".join("-" * (width - 1) for width in widths) + "\n"
    heads = ["%stddev", *["%change      %stddev"] * (len(designs) - 1)]
    text += "".join(f"{head:>{width}}" for head, width in zip(heads, widths)) + "\n"
    for name, read in _rows(runs):
        values = [[value for run in side if (value := read(run)) is not None] for side in sides]
        if not any(map(any, values)) or not all(values):
            continue
        base = statistics.fmean(values[0])
        text += _spread(values[0])
        for one in values[1:]:
            mean = statistics.fmean(one)
            text += (f"{(mean / base - 1) * 100:+.1f}%" if base else "-").rjust(CHANGE) + _spread(one)
        text += f"  {name}\n"
    return text


def _rows(runs: Sequence[Result]) -> Iterator[tuple[str, Reader]]:
    yield from EVENTS.items()
    for name in dict.fromkeys(name for run in runs for name in run.vmstat):
        yield f"proc-vmstat.{name}", lambda run, name=name: run.vmstat.get(name)  # type: ignore[misc]


def _spread(values: Sequence[float]) -> str:
    """Write a mean with its standard deviation in percent, where there are several and it is not 0."""
    mean = statistics.fmean(values)
    shown = f"{mean:.0f}" if mean >= 1000 or mean == int(mean) else f"{mean:.4g}"
    share = statistics.stdev(values) / mean * 100 if len(values) > 1 and mean else 0
    return f"{shown} {f'± {share:2.0f}%' if share >= 0.5 else '':6}".rjust(VALUE)
