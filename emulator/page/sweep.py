"""Write a page of a sweep: each figure at each point, designs side by side with their changes, the picture,
what was wrong, and what it takes to have it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from html import escape
from pathlib import Path

from emulator.output_file import write_atomically
from emulator.page.frame import figure, section, whole_page
from emulator.page.page import proofs, what_ran
from emulator.page.tables import CLASSES, plain_table
from emulator.repeats.figures import FIGURES, Figure
from emulator.repeats.text import change_text
from emulator.sweep.points import DESIGN, At, first_design
from emulator.sweep.table import EACH_BY_ITSELF, draw_sweep, median_text

STOPPED = 20  # shown; the journal has all
MANY = 8  # values of a key in the title


@dataclass(frozen=True, slots=True)
class Swept:
    """A sweep that is over. `wrong` has a sentence for each run that has no figures."""

    points: list[At]
    code: int
    said: str
    wrong: list[str] = field(default_factory=list)
    command: str = ""
    host: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


def write_sweep_page(swept: Swept, file: str | Path) -> None:
    """Write the page, whole or not at all. Raises OSError with the path."""
    write_atomically(file, sweep_page(swept))


def sweep_page(swept: Swept) -> str:
    """Give the page as text."""
    runs = [run for at in swept.points for run in at.runs]
    varied = "; ".join(_values(swept.points, key) for key in swept.points[0].point)
    more = len(swept.wrong) - STOPPED
    listed = [*swept.wrong[:STOPPED], *([f"and {more:,} more"] if more > 0 else [])]
    stopped = f"<ul>\n{''.join(f'<li>{escape(one)}</li>' for one in listed)}</ul>\n" if listed else ""
    head = "Medians with 95 % intervals"
    ran = what_ran(runs, swept.host, swept.versions)
    sections = [
        section("figures", "Figures", _figures(swept.points)),
        section("picture", head, figure("picture", head, partial(draw_sweep, swept.points))),
        section("wrong", "What was wrong", stopped + proofs(runs)),
        section("run", "What ran", plain_table("machine, workload and host", ran)),
        section("again", "To have it again", f'<pre tabindex="0">{escape(swept.command)}</pre>\n'),
    ]
    return whole_page(f"sweep: {varied}", swept.code, swept.said, "figures", "".join(sections))


def _values(points: Sequence[At], key: str) -> str:
    values = list(dict.fromkeys(at.point[key] for at in points))
    said = ", ".join(values[:MANY]) + f" and {len(values) - MANY} more" * (len(values) > MANY)
    return said if key == DESIGN else f"{key} {said}"


def _figures(points: Sequence[At]) -> str:
    """Give one table: a group of rows for each figure, in it a row for each place, designs side by side."""
    designs = list(dict.fromkeys(at.point[DESIGN] for at in points))
    places: dict[str, dict[str, At]] = {}
    for at in points:
        name = ", ".join(f"{key}={value}" for key, value in at.point.items() if key != DESIGN)
        places.setdefault(name, {})[at.point[DESIGN]] = at
    heads = [f'<th scope="col">{escape(designs[0])}</th>']
    for design in designs[1:]:
        heads += [f'<th scope="col">{escape(design)}</th>', '<th scope="col">change</th>']
    groups = []
    for one in FIGURES:
        if not any(one.name in at.taken for at in points):
            continue
        rows = [_row(name, there, designs, one) for name, there in places.items()]
        label = f'<th scope="rowgroup" colspan="{len(heads) + 1}">{escape(one.label.strip())}</th>'
        groups.append(f"<tbody>\n<tr>{label}</tr>\n{''.join(rows)}</tbody>\n")
    runs = sorted({len(at.runs) for at in points})
    of = f"{runs[0]}" if len(runs) == 1 else f"{runs[0]} to {runs[-1]}"
    said = f"Medians of {of} runs, and changes against {escape(first_design(points))}, with 95 % intervals."
    return (
        f'<p class="quiet">{said} {EACH_BY_ITSELF}</p>\n'
        '<div class="scroll" tabindex="0" role="group" aria-label="figures">\n<table>\n'
        f'<thead><tr><th scope="col"></th>{"".join(heads)}</tr></thead>\n{"".join(groups)}</table>\n</div>\n'
    )


def _row(name: str, there: Mapping[str, At], designs: Sequence[str], one: Figure) -> str:
    cells = []
    for i, design in enumerate(designs):
        at = there.get(design)
        cells.append(f"<td>{escape(median_text(one, at)) if at else '-'}</td>")
        if i and at and one.name in at.changes:
            said, style = change_text(at.changes[one.name], at.counts(one.name))
            cells.append(f'<td class="{CLASSES[style]}">{escape(said)}</td>')
        elif i:
            cells.append("<td>-</td>")
    return f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>\n'
