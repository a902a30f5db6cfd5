"""The tables of a page: the figures of each design with their changes, and facts by name."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from html import escape

from emulator.repeats.figures import FIGURES, Figure, samples
from emulator.repeats.result import Repeats
from emulator.repeats.spread import Difference, differences
from emulator.repeats.text import change_text
from emulator.report.console import BAD, GOOD, QUIET
from emulator.report.text import percent
from emulator.result import Comparison

CLASSES = {GOOD: "good", BAD: "bad", QUIET: "quiet"}  # of page.css


def figures_table(found: Comparison | Repeats, name: str = "") -> str:
    """Give a row for each figure, a column for each design, and one for its change against the first. `name`
    stands above it.
    """
    designs = list(dict.fromkeys(run.design for run in found.runs))
    taken = {design: samples([run for run in found.runs if run.design == design]) for design in designs}
    base, *others = designs
    tested = {design: differences(taken[base], taken[design]) for design in others}
    several = isinstance(found, Repeats)
    caption = "medians; changes with their 95 % interval" if several else "one run of each design"
    caption = f"{escape(name)}: {caption}" if name else caption
    heads = [f'<th scope="col">{escape(base)}</th>']
    for design in others:
        heads += [f'<th scope="col">{escape(design)}</th>', '<th scope="col">change</th>']
    rows = []
    for figure in FIGURES:
        if not any(figure.name in one for one in taken.values()):
            continue
        cells = [_value(figure, taken[base].get(figure.name))]
        for design in others:
            cells += [_value(figure, taken[design].get(figure.name))]
            one = tested[design].get(figure.name)
            counts = len(taken[base].get(figure.name, ())), len(taken[design].get(figure.name, ()))
            cells += [_change(one, counts, several)]
        rows.append(f'<tr><th scope="row">{escape(figure.label.strip())}</th>{"".join(cells)}</tr>\n')
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="figures {escape(name)}">\n<table>\n'
        f'<caption>{caption}</caption>\n<thead><tr><th scope="col"></th>{"".join(heads)}</tr></thead>\n'
        f"<tbody>\n{''.join(rows)}</tbody>\n</table>\n</div>\n"
    )


def plain_table(caption: str, rows: Mapping[str, str]) -> str:
    """Give names and what there is to say of each."""
    lines = [
        f'<tr><th scope="row">{escape(name)}</th><td class="text">{escape(value)}</td></tr>\n'
        for name, value in rows.items()
    ]
    return f"<table>\n<caption>{escape(caption)}</caption>\n<tbody>\n{''.join(lines)}</tbody>\n</table>\n"


def _value(figure: Figure, values: Sequence[float] | None) -> str:
    return f"<td>{escape(figure.shown(statistics.median(values))) if values else '-'}</td>"


def _change(one: Difference | None, counts: tuple[int, int], several: bool) -> str:
    """Give a change: of several runs with its interval, if it is more than chance."""
    if one is None:
        return "<td>-</td>"
    if not several:
        return f"<td>{'-' if math.isnan(one.ratio) else percent(one.ratio - 1)}</td>"
    said, style = change_text(one, counts)
    return f'<td class="{CLASSES[style]}">{escape(said)}</td>'
