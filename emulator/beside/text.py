"""Tell people how stored results differ: what they were, in which settings they differ, and for each design
the figures and counters that are not the same.

Where there are too few runs to tell a change from chance, every change is shown, and it is said. Of more
runs, counters are shown (figures of the screen always) whose difference is more than chance: the figures are
tested together, and the counters together.
"""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Callable, Mapping
from typing import TextIO

from rich.text import Text

from emulator.beside.sides import ENOUGH, Beside, Group, Stored, Values, tested, worst
from emulator.repeats.figures import FIGURES
from emulator.repeats.spread import Difference, Sample
from emulator.repeats.text import change_text
from emulator.report.console import BAD, GOOD, QUIET, print_styled
from emulator.report.text import percent
from inputs.text import on_a_line

COLUMNS = 80
LABEL, VALUE = 20, 12
FEW = f"changes may be chance: to tell takes {ENOUGH} + {ENOUGH} runs (--seeds)"
SETTING = 60  # characters of a setting's value
Shown = Callable[[float], str]


def print_beside(found: Beside, stream: TextIO) -> None:
    """Print it: coloured if `stream` is a terminal, plain otherwise."""
    print_styled(render(found), stream)


def beside_text(found: Beside) -> str:
    """Return the whole screen as plain text."""
    return render(found).plain


def render(found: Beside) -> Text:
    """Return the results, how they differ in settings, and a table for each group of runs."""
    text = Text()
    for one in found.stored:
        text.append(f"{one.letter:<4}", "bold").append(f"{one.place}: {runs_of(one)}\n")
    for line in _wrapped(settings_sentence(found)):
        text.append(line + "\n", QUIET)
    for group in found.groups:
        _group(text, group)
    for letter, names in found.alone().items():
        for line in _wrapped(f"{', '.join(names)}: in {letter} alone, not compared"):
            text.append(line + "\n", QUIET)
    verdict = worst(found)
    text.append("\n").append(verdict.line(), BAD if verdict.code else GOOD)
    return text


def runs_of(one: Stored) -> str:
    """Say what runs a result has: `linux, luf: 6 runs each, seeds 1 to 6`."""
    counts = {sum(run.design == design for run in one.found.runs) for design in one.designs}
    each = " each" * (len(one.designs) > 1)
    low, high = min(counts), max(counts)
    many = f"{low}" if low == high else f"{low} to {high}"
    seeds = one.settings["seed"]
    more = f", seed{'s' * (not seeds.isdigit())} {seeds}"
    return f"{', '.join(one.designs)}, {many} run{'s' * (high > 1)}{each}{more}"


def settings_sentence(found: Beside) -> str:
    """Say in one sentence in which settings the results differ."""
    differing = found.differing()
    if not differing:
        return "Machine, workload, seeds and all settings are the same."
    parts = []
    for name, values in differing.items():
        told = ", ".join(f"{letter} {on_a_line(value, SETTING)}" for letter, value in values.items())
        parts.append(f"{name} ({told})")
    return f"Not the same: {', '.join(parts)}."


def _wrapped(sentence: str) -> list[str]:
    return textwrap.wrap(sentence, COLUMNS, break_on_hyphens=False)


def _group(text: Text, group: Group) -> None:
    base, *others = group.runs.designs
    head = f"{on_a_line(group.name, LABEL - 1):<{LABEL}}{base:>{VALUE}}   {others[0]:>{VALUE}}  change"
    text.append(f"\n{head}\n", "bold")
    figures = {figure.name: (figure.label, figure.shown) for figure in FIGURES}
    rest = group.counters()
    counters = {name: (name, _count) for values in rest.values() for name in values}
    same, unseen = 0, 0
    for values, labels, all_shown in ((group.figures(), figures, True), (rest, counters, group.few)):
        found = tested(values)
        for name, (label, shown) in labels.items():
            if name not in values[base]:
                continue
            if _same(values, name):
                same += 1
            elif not all_shown and not any(name in found[one] and found[one][name].seen for one in others):
                unseen += 1
            else:
                changes = {letter: found[letter][name] for letter in others if name in found[letter]}
                _row(text, group, label, shown, {letter: values[letter][name] for letter in (base, *changes)},
                     changes)  # fmt: skip
    hidden = [f"{same} equal everywhere"] * bool(same)
    hidden += [f"{unseen} without a difference seen"] * bool(unseen)
    notes = [f"rows hidden: {', '.join(hidden)}"] * bool(hidden)
    notes += [FEW] * group.few
    for note in notes:
        text.append(f"{'':<{LABEL}}{note}\n", QUIET)


def _row(
    text: Text, group: Group, label: str, shown: Shown, values: Values, changes: Mapping[str, Difference]
) -> None:
    """Write the first letter's median, and a line for each of the others."""
    base, *others = group.runs.designs
    if len(label) >= LABEL:  # of a counter: all of its name, above its figures
        text.append(f"{label}\n")
        label = ""
    first = shown(statistics.median(values[base]))
    for i, letter in enumerate(others):
        start = f"{label:<{LABEL}}{first:>{VALUE}}" if i == 0 else " " * (LABEL + VALUE)
        mark = letter if len(others) > 1 else " "
        text.append(f"{start} {mark} ")
        if letter not in changes:
            text.append(f"{'-':>{VALUE}}\n")
            continue
        text.append(f"{shown(statistics.median(values[letter])):>{VALUE}}  ")
        text.append(*change_of(changes[letter], values[base], values[letter]))
        text.append("\n")


def change_of(one: Difference, first: Sample, second: Sample) -> tuple[str, str]:
    """Say how a side differs, and in which style; of too few runs without a judgement."""
    if equal(first, second):
        return "the same", QUIET
    if min(len(first), len(second)) < ENOUGH:
        return ("from 0" if math.isnan(one.ratio) else percent(one.ratio - 1)), ""
    return change_text(one, (len(first), len(second)))


def equal(*sides: Sample) -> bool:
    """Are values the same on all sides: run by run, or one value everywhere?"""
    return len({value for side in sides for value in side}) == 1 or all(
        sorted(side) == sorted(sides[0]) for side in sides
    )


def _same(values: Mapping[str, Values], name: str) -> bool:
    return equal(*(side.get(name, []) for side in values.values()))


def _count(value: float) -> str:
    return f"{value:,.0f}"
