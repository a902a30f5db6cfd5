"""A page of stored results beside each other: the results, their settings that differ, the figures of each
group of runs, and how to have each again.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from emulator.beside.sides import Beside, worst
from emulator.beside.text import runs_of, settings_sentence
from emulator.output_file import write_atomically
from emulator.page.frame import figure, section, whole_page
from emulator.page.page import again, proofs, what_ran
from emulator.page.tables import figures_table, plain_table
from emulator.repeats.plot import draw_groups

RATIOS = "Ratios to the first result"


def write_beside(found: Beside, file: str | Path) -> None:
    """Write the page, whole or not at all. Raises OSError with the path."""
    write_atomically(file, page_of_beside(found))


def page_of_beside(found: Beside) -> str:
    """Give the page as text."""
    title = f"{found.stored[0].found.runs[0].workload}: results beside each other"
    results = {one.letter: f"{one.place}: {runs_of(one)}" for one in found.stored}
    compared = plain_table("what is compared", results) + f"<p>{escape(settings_sentence(found))}</p>\n"
    figures = "".join(figures_table(group.runs, group.name) for group in found.groups)
    ratios = figure("ratios", RATIOS, lambda file, write: draw_ratios(found, file, write))
    sections = [
        section("results", "Results", compared),
        section("figures", "Figures", figures),
        section("ratios", RATIOS, ratios),
        section("wrong", "What was wrong", proofs(found.labelled())),
    ]
    for one in found.stored:
        ran = what_ran(one.found.runs, one.found.host, one.found.versions)
        told = plain_table("machine, workload and host", ran) + again(one.found)
        sections.append(section(f"run-{one.letter}", f"{one.letter}: {escape(one.place)}", told))
    verdict = worst(found)
    return whole_page(title, verdict.code, verdict.said, "figures", "".join(sections))


def draw_ratios(found: Beside, *where: Any) -> None:
    """Draw the figures of all groups as ratios. `where` is what `draw_repeats` takes."""
    several = len(found.groups) > 1
    groups = {group.name if several else "": group.runs for group in found.groups}
    title = ", ".join(f"{one.letter} {one.place}" for one in found.stored)
    draw_groups(groups, title, *where)
