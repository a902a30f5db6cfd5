"""Tell people what repeated runs found: for each figure the medians, how far runs lie apart, and whether a
design differs from the first one by more than chance.
"""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

from rich.text import Text

from emulator.repeats.figures import FIGURES, samples
from emulator.repeats.result import Repeats
from emulator.repeats.spread import ALPHA, CONFIDENCE, Difference, differences, least_p
from emulator.report import talk
from emulator.report.console import BAD, GOOD, QUIET, print_styled
from emulator.report.text import heading, percent, proofs
from emulator.verdict import DIRTY, of_repeats
from inputs.text import visible

COLUMNS = 80
LABEL, DESIGN, VALUE = 20, 12, 13  # with a change, its interval and the talk's
Samples = Mapping[str, Mapping[str, Sequence[float]]]  # by design, by figure


def print_repeats(repeats: Repeats, stream: TextIO, code: int = DIRTY) -> None:
    """Print the screen: coloured if `stream` is a terminal, plain otherwise."""
    print_styled(render(repeats, code), stream)


def repeats_text(repeats: Repeats) -> str:
    """Return the whole screen as plain text."""
    return render(repeats).plain


def render(repeats: Repeats, code: int = DIRTY) -> Text:
    """Return what ran, the figures, what was wrong, where to look further."""
    text = Text()
    heading(text, repeats, _seeds([run.seed for run in repeats.runs]))
    text.append("\n")
    _table(text, repeats)
    for i, design in enumerate(repeats.designs):
        _checked(text, "" if i else "coherence", repeats.of(design))
    for run, why in repeats.missing.items():
        text.append(f"{'partial':<{LABEL}}{run} has no result: {why}\n", BAD)
    for run in _first_wrong(repeats):
        proofs(text, run)
    if repeats.folder:
        text.append(f"\nmore: luf report {visible(repeats.folder)}   ·   each run in the folder\n", QUIET)
    verdict = of_repeats(repeats, code)
    text.append("" if repeats.folder else "\n")
    text.append(verdict.line(LABEL), BAD if verdict.code else GOOD)
    return text


def _seeds(seeds: Sequence[int]) -> str:
    low, high = min(seeds), max(seeds)
    if len(set(seeds)) == high - low + 1:
        return f"seeds {low} to {high}" if high > low else f"seed {low}"
    return f"{len(set(seeds))} seeds"


def _table(text: Text, repeats: Repeats) -> None:
    """Write a line for each figure and design: its median, and its change or where its runs lie."""
    taken: Samples = {design: samples(repeats.of(design)) for design in repeats.designs}
    base, *others = repeats.designs
    found = {design: differences(taken[base], taken[design]) for design in others}
    with_talk = base == "linux" and repeats.runs[0].workload == talk.WORKLOAD
    counts = [f"{len(repeats.of(design))} of {design}" for design in repeats.designs]
    text.append(f"{'runs':<{LABEL}}" + f"\n{'':<{LABEL}}".join(_lines(counts)) + "\n")
    text.append(
        f"{'':<{LABEL}}medians; of {base} its lowest and highest run, of others the\n"
        f"{'':<{LABEL}}change and its {CONFIDENCE * 100:.0f} % interval, if it is more than chance\n",
        QUIET,
    )
    for figure in FIGURES:
        if figure.name not in taken[base]:
            continue
        for i, design in enumerate(repeats.designs):
            values = taken[design].get(figure.name)
            if not values:
                continue
            label = "" if i else figure.label
            shown = figure.shown(statistics.median(values))
            text.append(f"{label:<{LABEL}}{_fitted(design):<{DESIGN}}{shown:>{VALUE}}  ")
            if i == 0:
                ends = dict.fromkeys(figure.shown(end) for end in (min(values), max(values)))
                text.append(" to ".join(ends) + "\n", QUIET)
                continue
            runs = len(taken[base][figure.name]), len(values)
            one = found[design][figure.name]
            text.append(*change_text(one, runs))
            text.append("\n")
            if with_talk and design == "luf" and figure.talk is not None:
                shown = f"{'':<{LABEL}}{'the talk':<{DESIGN}}{'':>{VALUE}}  {percent(figure.talk)}\n"
                text.append(shown, QUIET)


def change_text(one: Difference, runs: tuple[int, int]) -> tuple[str, str]:
    """Say how a figure differs, and in which style."""
    if one.low == one.high == 1 or (one.p == 1 and math.isnan(one.ratio)):
        return "the same", QUIET
    if not one.seen:
        if least_p(*runs) > ALPHA:
            ratio = "" if math.isnan(one.ratio) else f"{percent(one.ratio - 1)}, but "
            return f"{ratio}{runs[0]} + {runs[1]} runs cannot tell", QUIET
        return f"no difference seen (p = {one.p:.2g})", QUIET
    if math.isnan(one.ratio):
        return f"differs from 0 (p = {one.p:.2g})", BAD
    style = GOOD if one.ratio < 1 else BAD
    if math.isnan(one.low):
        return f"{percent(one.ratio - 1)} (p = {one.p:.2g})", style
    low, high = (f"{(end - 1) * 100:+,.1f}" for end in (one.low, one.high))
    return f"{percent(one.ratio - 1)} [{low}, {high}]", style


def _lines(words: Sequence[str]) -> list[str]:
    """Put words into lines that fit beside the label."""
    return textwrap.wrap(", ".join(words), COLUMNS - LABEL, break_on_hyphens=False)


def _fitted(name: str) -> str:
    """Give a design's name; a long one loses its beginning."""
    return name if len(name) < DESIGN else "…" + name[-(DESIGN - 2) :]


def _checked(text: Text, label: str, runs: Sequence[Any]) -> None:
    """Write what the oracle said of a design's runs."""
    wrong = [run for run in runs if run.violations]
    stopped = sum(run.stopped for run in runs)
    if wrong:
        said = f"{len(wrong)} of {len(runs)} runs with a violation, the first with seed {wrong[0].seed}"
        said += f"; {stopped} stopped early, left out above" * bool(stopped)
    else:
        said = "not checked" if runs[0].check == "off" else "no violation"
    style = BAD if wrong or runs[0].check == "off" else GOOD
    text.append(f"{label:<{LABEL}}").append(f"{_fitted(runs[0].design):<{DESIGN}}  {said}\n", style)


def _first_wrong(repeats: Repeats) -> Iterator[Any]:
    for design in repeats.designs:
        yield from [run for run in repeats.of(design) if not run.clean][:1]
