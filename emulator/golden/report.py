"""Tell people how the emulator differs from the real kernel: unexplained differences first, then explained
ones, then the counts.

Everything is made once as rich text, as in `emulator/report/text.py`; the same figures go to docs/fidelity.md
by `emulator/golden/document.py`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import TextIO

from rich.text import Text

from emulator.golden.bands import (
    FLAT,
    NOT_EMULATED,
    NOT_RECORDED,
    OPPOSITE,
    OUTSIDE,
    UNDECIDED,
    BandRow,
    Direction,
)
from emulator.golden.compare import (
    AGREES,
    COUNTER,
    DIFFERS,
    UNKNOWN,
    VARIES,
    Row,
    by_scenario,
    cells_of,
    tally,
)
from emulator.golden.result import Fidelity
from emulator.report.console import BAD, COLUMNS, GOOD, QUIET, print_styled
from emulator.report.text import seconds
from emulator.verdict import of_fidelity

LABEL = 12
REAL = 16  # columns of what the real kernel did, at least
MARK = {AGREES: "", VARIES: "varies, not judged", UNKNOWN: "not known"}


def print_fidelity(fidelity: Fidelity, stream: TextIO, *, everything: bool = False) -> None:
    """Print the comparison: coloured if `stream` is a terminal; differences only, or every row."""
    print_styled(render(fidelity, everything=everything), stream)


def render(fidelity: Fidelity, *, everything: bool = False) -> Text:
    """Return the whole screen."""
    text = Text()
    _heading(text, fidelity)
    if fidelity.rows:
        _micro(text, fidelity, everything)
        _scenarios(text, fidelity, everything)
    if fidelity.bands:
        _pressure(text, fidelity, everything)
        _directions(text, fidelity, everything)
    _summary(text, fidelity)
    return text


def _heading(text: Text, fidelity: Fidelity) -> None:
    rules = fidelity.rules
    recorded = rules.recorded if fidelity.shipped else "its rules and constants; the recording of --data"
    lines = textwrap.wrap(f"Linux {rules.kernel}: {recorded}", COLUMNS - LABEL)
    text.append(f"{'real':<{LABEL}}", QUIET).append(f"\n{'':<{LABEL}}".join(lines) + "\n")
    cells, runs = (
        len(cells_of(fidelity.rows)),
        len({row.tag for row in fidelity.bands if row.verdict != NOT_EMULATED}),
    )
    parts = [f"{cells:,} cells in {seconds(fidelity.micro_seconds)}"] if cells else []
    parts += [f"{plural(runs, 'pressure run')} in {seconds(fidelity.pressure_seconds)}"] if runs else []
    text.append(f"{'emulated':<{LABEL}}", QUIET).append(
        f"{', '.join(parts)} of host time; {fidelity.seeds}, jobs {fidelity.jobs}\n"
    )


# -- micro ---------------------------------------------------------------------------------------------------


def _micro(text: Text, fidelity: Fidelity, everything: bool) -> None:
    for explanation, rows in by_explanation(fidelity.differing):
        _explanation(text, explanation, "micro")
        _rows(text, rows)
    if everything:
        text.append("\nevery row\n", "bold")
        _rows(text, fidelity.rows)


def by_explanation(rows: Iterable[Row]) -> list[tuple[str, list[Row]]]:
    """Group rows by what explains them, the unexplained first."""
    groups: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: bool(row.explanation)):
        groups.setdefault(row.explanation, []).append(row)
    return list(groups.items())


def _explanation(text: Text, explanation: str, part: str) -> None:
    text.append("\n")
    if explanation:
        text.append(f"{part}, explained: ", "bold").append(
            "\n".join(textwrap.wrap(explanation, COLUMNS)) + "\n"
        )
    else:
        text.append(f"{part}, unexplained\n", BAD)


def _rows(text: Text, rows: Sequence[Row]) -> None:
    width = max([len("metric"), *(len(row.metric) for row in rows)])
    names = max([len("scenario"), *(len(row.scenario) for row in rows)])
    wide = max([REAL, *(2 + len(real_text(row)) for row in rows)])
    text.append(
        f"{'scenario':<{names}}{'T':>4}{'P':>6}  "
        f"{'metric':<{width}}{'real':>{wide}}{'emulated':>11}{'difference':>12}\n",
        QUIET,
    )
    for group in by_scenario(rows).values():
        for i, row in enumerate(group):
            ours = "-" if row.emulated is None else number(row.emulated)
            change = f"{row.difference:+,.6g}" if row.difference else ""
            name = "" if i and group[i - 1].key == row.key else row.scenario
            line = (
                f"{name:<{names}}{row.T:>4}{row.P:>6}  "
                f"{row.metric:<{width}}{real_text(row):>{wide}}{ours:>11}{change:>12}"
            )
            said = row.problem or MARK.get(row.verdict, "")
            text.append(f"{line}   {said}".rstrip() + "\n", BAD if row.verdict == DIFFERS else "")


def real_text(row: Row) -> str:
    """What the real kernel did: `7`, `6..12..24` if it varied (min, median, max), `8.667` as a mean."""
    if row.kind == COUNTER and row.real[0] != row.real[2]:
        return "..".join(number(one) for one in row.real)
    return number(row.middle)


def number(value: float) -> str:
    """Return a count as `4,096`, a mean as `8.667`."""
    return (
        f"{value:,.0f}" if value == int(value) else f"{value:,.3f}" if abs(value) >= 0.01 else f"{value:.2g}"
    )


def _scenarios(text: Text, fidelity: Fidelity, everything: bool) -> None:
    grouped = by_scenario(fidelity.rows)
    width = max(map(len, grouped))
    text.append(
        f"\n{'scenario':<{width}}{'rows agree':>16}{'share':>9}{'vary':>7}{'cells agree':>14}\n", "bold"
    )
    whole = 0
    for scenario, rows in grouped.items():
        one = tally(rows)
        if one.rows == one.agrees and not everything:
            whole += 1
            continue
        if one.unknown:
            text.append(f"{scenario:<{width}}{'not known to the emulator':>39}\n", BAD)
            continue
        agree, cells = f"{one.agrees:,} of {one.judged:,}", f"{one.cells_agree} of {one.cells}"
        rate = percent_down(one.agrees, one.judged)
        line = f"{scenario:<{width}}{agree:>16}{rate:>9}{one.varies or '':>7}{cells:>14}"
        text.append(line + "\n", BAD if one.differs else "")
    if whole:
        text.append(
            f"{plural(whole, 'scenario')} {'agrees' if whole == 1 else 'agree'} in "
            "every row (--all lists them)\n",
            GOOD,
        )


# -- pressure ------------------------------------------------------------------------------------------------


def _pressure(text: Text, fidelity: Fidelity, everything: bool) -> None:
    shown = list(fidelity.bands) if everything else fidelity.outside
    groups: dict[str, list[BandRow]] = {}
    for row in sorted(shown, key=lambda row: (row.verdict != OUTSIDE, bool(row.explanation))):
        groups.setdefault(row.explanation if row.verdict == OUTSIDE else "within", []).append(row)
    for explanation, rows in groups.items():
        if explanation == "within":
            text.append("\npressure, inside the band or not judged\n", "bold")
        else:
            _explanation(text, explanation, "pressure, outside the band")
        _bands(text, rows)


def _bands(text: Text, rows: Sequence[BandRow]) -> None:
    wide = max(len("metric"), *(len(row.metric) for row in rows))
    tag = max(len("run"), *(len(row.tag) for row in rows))
    head = (
        f"{'run':<{tag}}  {'metric':<{wide}}{'real':>12}{'its spread':>18}"
        f"{'emulated':>12}{'its seeds':>18}{'ratio':>8}{'band':>8}\n"
    )
    text.append(head, QUIET)
    for row in rows:
        real = "-" if row.real is None else short(row.real)
        ours = "-" if row.emulated is None else short(row.emulated)
        ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
        line = f"{row.tag:<{tag}}  {row.metric:<{wide}}{real:>12}{spread_text(row.spread):>18}{ours:>12}"
        line += f"{spread_text(row.own):>18}{ratio:>8}{f'x {row.factor:g}':>8}"
        said = row.problem or (row.verdict if row.verdict in (NOT_RECORDED, NOT_EMULATED) else "")
        text.append(f"{line}   {said}".rstrip() + "\n", BAD if row.verdict == OUTSIDE else "")


def spread_text(spread: Sequence[float]) -> str:
    """Return lowest and highest of repeated runs: `32,910..34,461`, empty if there was one."""
    return "..".join(short(one) for one in spread)


def short(value: float) -> str:
    """Return a figure of a pressure run: `34,461`, `0.1048`."""
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.4g}"


def _directions(text: Text, fidelity: Fidelity, everything: bool) -> None:
    shown = fidelity.directions if everything else fidelity.opposite
    if not shown:
        return
    text.append(
        "\nfrom run to run\n" if everything else "\nfrom run to run, in the opposite direction\n", "bold"
    )
    width = max(len(one.metric) for one in shown)
    route = max(len(f"{one.first} -> {one.second}") for one in shown)
    text.append(f"{'from -> to':<{route}}  {'metric':<{width}}{'real':>10}{'emulated':>10}\n", QUIET)
    for one in sorted(shown, key=lambda one: bool(one.explanation)):
        text.append(
            f"{f'{one.first} -> {one.second}':<{route}}  "
            f"{one.metric:<{width}}{signed(one.real):>10}{signed(one.emulated):>10}"
        )
        text.append(f"   {direction_text(one)}".rstrip() + "\n", BAD if one.verdict == OPPOSITE else "")


def direction_text(one: Direction) -> str:
    """Return why a direction is shown."""
    if one.verdict == OPPOSITE:
        return one.explanation or "unexplained"
    return {FLAT: "no real change: not judged", UNDECIDED: "its seeds overlap: not decided"}.get(
        one.verdict, ""
    )


def signed(change: float) -> str:
    """Return a change as a share of the larger value: `+54 %`."""
    return f"{change * 100:+.0f} %"


# -- the sum -------------------------------------------------------------------------------------------------


def _summary(text: Text, fidelity: Fidelity) -> None:
    text.append("\n")
    for label, line, fine in summary_lines(fidelity):
        text.append(f"{label:<{LABEL}}", QUIET)
        wrapped = textwrap.wrap(line, COLUMNS - LABEL)
        text.append(f"\n{'':<{LABEL}}".join(wrapped) + "\n", "" if fine is None else GOOD if fine else BAD)
    verdict = of_fidelity(fidelity)
    text.append(verdict.line(LABEL), BAD if verdict.code else GOOD)


def summary_lines(fidelity: Fidelity) -> list[tuple[str, str, bool | None]]:
    """Return label, sentence and whether it is good (None: neither) for everything that was counted."""
    lines: list[tuple[str, str, bool | None]] = []
    one = fidelity.tally
    if fidelity.rows:
        rate = percent_down(one.agrees, one.judged)
        said = (
            f"{one.agrees:,} of {one.judged:,} judged rows agree ({rate}); {one.nothing:,} of "
            "these are 0 on both sides"
        )
        solid, judged = one.agrees - one.nothing, one.judged - one.nothing
        lines.append(
            (
                "micro",
                f"{said}; of the others {solid:,} of {judged:,} ({percent_down(solid, judged)})",
                not one.differs,
            )
        )
        rate = percent_down(one.cells_agree, one.cells)
        rest = (
            f"cells that differ: {one.cells_differ:,}; cells with a row that is not "
            f"judged: {one.cells_vary:,}"
        )
        lines.append(
            ("", f"{one.cells_agree:,} of {one.cells:,} cells agree in every row ({rate}); {rest}", None)
        )
    if one.varies:
        text = (
            "in which the real kernel itself varied and its range was not recorded: not judged, "
            "and not counted as agreeing"
        )
        lines.append(("", f"{plural(one.varies, 'row')} {text}", None))
    if fidelity.bands:
        inside, judged = len(fidelity.judged_bands) - len(fidelity.outside), len(fidelity.judged_bands)
        lines.append(("pressure", f"{inside} of {plural(judged, 'row')} inside the band", inside == judged))
    if fidelity.directions:
        same, judged = (
            len(fidelity.judged_directions) - len(fidelity.opposite),
            len(fidelity.judged_directions),
        )
        undecided = len(fidelity.undecided)
        flat = len(fidelity.directions) - judged - undecided
        said = (
            f"{same} of {judged} changes from run to run go the real way; {flat} have no "
            "direction in the real kernel"
        )
        lines.append(("", said, same == judged))
        if undecided:
            median = sum(one.real * one.emulated > 0 for one in fidelity.undecided)
            text = (
                f"{plural(undecided, 'change')} not decided: the emulator's seeds overlap ({median} have "
                "the real sign in the median)"
            )
            lines.append(("", text, None))
    unexplained = sum(not one.explanation for one in fidelity.differences)
    if fidelity.differences:
        lines.append(
            (
                "differences",
                f"{len(fidelity.differences):,}, of which {unexplained:,} unexplained",
                not unexplained,
            )
        )
    return lines + _left_out(fidelity)


def _left_out(fidelity: Fidelity) -> list[tuple[str, str, bool | None]]:
    lines: list[tuple[str, str, bool | None]] = []
    if fidelity.unknown_scenarios:
        listed = ", ".join(
            f"{scenario} ({plural(cells, 'cell')})" for scenario, cells in fidelity.unknown_scenarios.items()
        )
        lines.append(("not known", f"scenarios that the emulator does not know, not judged: {listed}", False))
    if fidelity.not_emulated:
        lines.append(
            (
                "not run",
                (
                    "pressure runs that the emulator did not run, not judged: "
                    f"{', '.join(fidelity.not_emulated)}"
                ),
                False,
            )
        )
    lines += [
        ("outlived", f"explained, but no longer a difference: {entry}", None) for entry in fidelity.outlived
    ]
    return lines


def percent_down(part: int, whole: int) -> str:
    """Return a share as `99.4 %`, rounded down so that only all is 100 %; `-` of nothing."""
    return f"{part * 1000 // whole / 10:.1f} %" if whole else "-"


def plural(count: int, noun: str) -> str:
    """Return `1 row`, `2 rows`."""
    return f"{count:,} {noun}{'s' * (count != 1)}"
