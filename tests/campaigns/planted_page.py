"""The page docs/planted.md: what `luf stress` finds of the planted bugs, and what its parts are worth."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from tests.planted.bugs import PROMISES, Bug
from tests.planted.hunt import Hunt

INTRO = """# Planted bugs: what `luf stress` finds

Written by `python -m tests.campaigns.planted --write`. Each of these bugs is a few lines of text in
[tests/planted](../tests/planted) that take the place of others: in a design, in the engine, or, put
back, what a commit of Linux has mended. Stress looks at a copy of the sources with one of them,
until it finds something. *Schedules* and *seconds* are those until the first finding, on {cores},
without compiling; *case* is what the finding was shrunk to, calls and switches of CPUs. A test is a
litmus test (`luf litmus --list`) or a workload. Hunts are kept from one version of the sources to the next
as long as the bug's text is the same, and most of these had a host that did other work beside them.
"""
KINDS = {
    "design": "In designs",
    "engine": "In the engine",
    "historic": "Races that Linux has had",
}


def summary(hunts: Sequence[Hunt]) -> str:
    """One line: how many were found, how soon."""
    found = [one.seconds for one in hunts if one.found]
    failed = sum(bool(one.error) for one in hunts)
    text = f"{len(found)} of {len(hunts)} found"
    if found:
        text += f", median {median(found):.1f} s, slowest {max(found):.0f} s"
    return text + (f"; stress failed on {failed}" if failed else "")


def page(bugs: dict[str, Bug], hunts: Sequence[Hunt]) -> str:
    """Give the whole page from hunts with all parts, and those without some."""
    whole = {one.bug: one for one in hunts if not one.without}
    had = " or ".join(str(cores) for cores in sorted({one.cores for one in whole.values()})) or "no"
    parts = [INTRO.format(cores=f"at most {had} cores"), summary(list(whole.values())) + ".\n"]
    parts += ablation(hunts)
    for kind, title in KINDS.items():
        parts += [f"## {title}\n", table([bug for bug in bugs.values() if bug.kind == kind], whole)]
    parts += [
        "## What each promise says\n",
        "\n".join(f"- {key}: {text}" for key, text in PROMISES.items()),
        "",
    ]
    return "\n".join(parts)


def ablation(hunts: Sequence[Hunt]) -> list[str]:
    """Tell what is found without one part, of the bugs that were hunted with and without it."""
    lines = []
    for without in sorted({one.without for one in hunts if one.without}):
        here = {one.bug: one for one in hunts if one.without == without}
        both = [one for one in hunts if not one.without and one.bug in here]
        had = sum(one.found for one in both)
        has = sum(here[one.bug].found for one in both)
        lines.append(f"| without {', '.join(without)} | {has} of {len(both)} | {has - had:+d} |")
    if not lines:
        return []
    return ["## What each part is worth\n", "| | found | change |", "|---|---:|---:|", *lines, ""]


def table(bugs: Sequence[Bug], hunts: dict[str, Hunt]) -> str:
    """Give the rows of these bugs, those that were not found last."""
    head = (
        "| bug | what is wrong | breaks | found | test, strategy | schedules | seconds | case |\n"
        "|---|---|---|---|---|---:|---:|---|\n"
    )
    order = sorted(bugs, key=lambda bug: (not (bug.name in hunts and hunts[bug.name].found), bug.name))
    return head + "".join(_row(bug, hunts.get(bug.name)) for bug in order)


def _row(bug: Bug, one: Hunt | None) -> str:
    cells = [f"`{bug.name}`", f"{bug.wrong} (`{bug.design}`)", bug.breaks]
    if one is None:
        cells += ["not hunted yet", "", "", "", ""]
    elif one.error:
        cells += ["stress failed", "", "", "", ""]
    elif not one.found:
        cells += [
            "**no**" + (f": {bug.note}" if bug.note else ""),
            "",
            f"{one.runs:,}",
            f"{one.seconds:.0f}",
            "",
        ]
    else:
        case = f"{one.calls} calls, {one.switches} switches" if one.calls else ""
        case += f", {one.replays}" if one.replays else ""
        cells += [one.signature, f"{one.test}, {one.strategy}", f"{one.runs:,}", f"{one.seconds:.1f}", case]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"
