"""The tornado: for each cost the change from one design to the other with the cost halved and doubled, beside
that with all costs as they are. Costs that matter most come first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from emulator.output_file import write_atomically
from emulator.page.frame import figure, section, whole_page
from emulator.page.page import proofs, what_ran
from emulator.page.tables import plain_table
from emulator.repeats.figures import FIGURES, Figure
from emulator.repeats.spread import RUNS_MIN, Difference
from emulator.report.picture import Write, picture
from emulator.report.text import percent
from emulator.sensitivity.plan import AS_GIVEN, COSTS, Cost
from emulator.sweep.points import At
from inputs.text import on_a_line

HEADLINES = ("tlb_shootdowns", "runtime_mean_ns")
NAME, CELL = 24, 24  # columns
ROW, HEAD = 0.28, 1.6  # inches
BEYOND = "*"  # its interval and that of the costs as given have nothing in common
HALVED, DOUBLED = "#0072B2", "#D55E00"


@dataclass(frozen=True, slots=True)
class Bar:
    """A cost, and the change of a figure with it halved and doubled; None where no run came to its end."""

    cost: Cost
    half: Difference | None
    double: Difference | None

    def farthest(self, base: Difference) -> float:
        """Give by how much it moves the change, for the order of bars."""
        ratios = [one.ratio for one in (self.half, self.double) if one and not math.isnan(one.ratio)]
        return max((abs(ratio - base.ratio) for ratio in ratios), default=0.0)


@dataclass(frozen=True, slots=True)
class Tornado:
    """One figure: its change with the costs as given, and a bar for each cost."""

    figure: Figure
    base: Difference
    bars: list[Bar]


def tornados(points: Sequence[At], costs: Sequence[Cost]) -> list[Tornado]:
    """Give one of each headline figure that the runs have."""
    changes = {at.point[COSTS]: at.changes for at in points if at.changes}
    found = []
    for one in FIGURES:
        base = changes.get(AS_GIVEN, {}).get(one.name)
        if one.name not in HEADLINES or base is None or math.isnan(base.ratio):
            continue
        bars = [Bar(cost, *(_change_with(changes, cost, to, one) for to in cost.both)) for cost in costs]
        bars.sort(key=partial(_nearest_last, base))
        found.append(Tornado(one, base, bars))
    return found


def _nearest_last(base: Difference, bar: Bar) -> float:
    return -bar.farthest(base)


def _change_with(
    changes: Mapping[str, Mapping[str, Difference]], cost: Cost, value: int, one: Figure
) -> Difference | None:
    name = AS_GIVEN if value == cost.value else f"{cost.name}={value}"
    return changes.get(name, {}).get(one.name)


def beyond(one: Difference | None, base: Difference) -> bool:
    """Is a change another one than with the costs as given, by the intervals of both?"""
    return one is not None and (one.low > base.high or one.high < base.low)


def change(one: Difference | None, base: Difference) -> str:
    """Say a change with its interval, and mark it if it is another one."""
    if one is None or math.isnan(one.ratio):
        return "-"
    if math.isnan(one.low):
        return percent(one.ratio - 1)
    low, high = (f"{(end - 1) * 100:+,.1f}" for end in (one.low, one.high))
    return f"{percent(one.ratio - 1)} [{low}, {high}]{BEYOND * beyond(one, base)}"


def tornado_text(found: Sequence[Tornado], designs: Sequence[str], seeds: int) -> str:
    """Return the table for people, in 80 columns."""
    first, second = (on_a_line(design, NAME) for design in designs)
    text = ""
    for one in found:
        text += f"{one.figure.label.strip()}, {second} against {first}: {change(one.base, one.base)}\n"
        text += f"  {'cost':<{NAME}}{'halved':<{CELL}}doubled\n"
        for bar in one.bars:
            cells = [change(side, one.base) for side in (bar.half, bar.double)]
            text += f"  {_name(bar.cost):<{NAME}}{cells[0]:<{CELL}}{cells[1]}".rstrip() + "\n"
        text += "\n"
    return text + explained(seeds) + "\n"


def explained(seeds: int) -> str:
    """Say what the figures are worth."""
    if seeds < RUNS_MIN:
        return "one run each, and each is another schedule: all may be chance (--seeds)"
    return f"95 % intervals of {seeds} runs; {BEYOND} does not overlap that with all costs as given"


def draw_tornado(found: Sequence[Tornado], file: str | Path, write: Write = write_atomically) -> None:
    """Draw a panel for each figure. Raises ValueError for an ending that no picture has, OSError with the
    path.
    """
    rows = max((len(one.bars) for one in found), default=1)
    with picture(file, (12, HEAD + ROW * rows), write=write) as drawing:
        for axes, one in zip(drawing.subplots(1, len(found), squeeze=False)[0], found):
            middle = 100 * (one.base.ratio - 1)
            if not math.isnan(one.base.low):
                axes.axvspan(100 * (one.base.low - 1), 100 * (one.base.high - 1), color="0.9", zorder=0)
            _draw_side(axes, "halved", HALVED, -0.2, middle, [bar.half for bar in one.bars])
            _draw_side(axes, "doubled", DOUBLED, 0.2, middle, [bar.double for bar in one.bars])
            axes.axvline(middle, color="0.3", linewidth=1)
            axes.set_yticks(range(len(one.bars)), [_name(bar.cost) for bar in one.bars])
            axes.set_ylim(len(one.bars) - 0.4, -0.6)
            axes.set_xlabel("change, %; grey: interval with the costs as given")
            axes.set_title(one.figure.label.strip(), loc="left", fontweight="bold")
        drawing.axes[0].legend(frameon=False, fontsize=9, loc="best")


def _draw_side(
    axes: Any, name: str, colour: str, shift: float, middle: float, sides: Sequence[Difference | None]
) -> None:
    """Draw one bar for each cost, with its interval."""
    for row, side in enumerate(sides):
        place, label = row + shift, name if row == 0 else None
        end = middle if side is None or math.isnan(side.ratio) else 100 * (side.ratio - 1)
        axes.barh(place, end - middle, 0.38, left=middle, color=colour, label=label)
        if side is not None and not math.isnan(side.low):
            axes.plot([100 * (side.low - 1), 100 * (side.high - 1)], [place] * 2, color="0.3", linewidth=1)


def page_of_tornado(
    found: Sequence[Tornado], points: Sequence[At], verdict: tuple[int, str], seeds: int, command: str
) -> str:
    """Give a page of it as text."""
    designs = list(dict.fromkeys(at.point["design"] for at in points))
    runs = [run for at in points if at.point[COSTS] == AS_GIVEN for run in at.runs]
    what = "Halved and doubled costs"
    sections = [
        section("figures", "Figures", "".join(map(_table, found)) + f"<p>{escape(explained(seeds))}</p>\n"),
        section("tornado", what, figure("tornado", what, partial(draw_tornado, found))),
        section("wrong", "What was wrong", proofs([run for at in points for run in at.runs])),
        section("run", "What ran", plain_table("with the costs as given", what_ran(runs, {}, {}))),
        section("again", "To have it again", f'<pre tabindex="0">{escape(command)}</pre>\n'),
    ]
    title = f"sensitivity: {', '.join(designs)}"
    return whole_page(title, verdict[0], verdict[1], "figures", "".join(sections))


def _table(one: Tornado) -> str:
    label = escape(one.figure.label.strip())
    rows = "".join(
        f'<tr><th scope="row">{_name(bar.cost)}</th>'
        f"<td>{escape(change(bar.half, one.base))}</td><td>{escape(change(bar.double, one.base))}</td></tr>\n"
        for bar in one.bars
    )
    heads = "".join(f'<th scope="col">{head}</th>' for head in ("cost", "halved", "doubled"))
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{label}">\n<table>\n'
        f"<caption>{label}: {escape(change(one.base, one.base))} with the costs as given</caption>\n"
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n</div>\n"
    )


def _name(cost: Cost) -> str:
    return f"{cost.name} {cost.value}"
