"""Write a page of a Comparison, or of repeated runs: figures as a table, pictures, what was wrong, and what
it takes to have it again.

    write_page(read_result("runs/latest"), "page.html")

Nothing on it comes from elsewhere: pictures are inline SVG whose text is text, the style and the few lines of
script stand in it. What users have named is escaped. The same result gives the same bytes. Left out: counters
by CPU, which the JSON has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

import matplotlib

from emulator.output_file import write_atomically
from emulator.page.tables import figures_table, plain_table
from emulator.repeats.plot import draw_repeats
from emulator.repeats.result import Repeats
from emulator.report.plot import draw
from emulator.report.proof import violation_proof
from emulator.report.timeline_plot import draw_timeline
from emulator.result import Comparison, Result
from emulator.verdict import of_comparison, of_repeats

HERE = Path(__file__).parent
PROOFS = 4  # shown; the result's JSON has all
IDENTITY = re.compile(r'(\bid="|url\(#|href="#)')
DIGITS = re.compile(r"(\d\.\d\d)\d+")  # of a length in points: a hundredth is enough
COMMENT = re.compile(r"<!--.*?-->|<metadata>.*?</metadata>", re.S)

Found = Comparison | Repeats


def write_page(found: Found, file: str | Path) -> None:
    """Write the page, whole or not at all. Raises OSError with the path."""
    write_atomically(file, page_of(found))


def page_of(found: Found) -> str:
    """Give the page as text."""
    run = found.runs[0]
    verdict = of_repeats(found) if isinstance(found, Repeats) else of_comparison(found)
    designs = list(dict.fromkeys(one.design for one in found.runs))
    title = f"{run.workload}: {', '.join(designs)}"
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    parts = [
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>\n{style}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#figures">to the figures</a>\n'
        f"<header>\n<h1>{escape(title)}</h1>\n"
        f'<p class="{"bad" if verdict.code else "good"}">{escape(verdict.said)}</p>\n</header>\n<main>\n',
        _section("figures", "Figures", figures_table(found)),
        *(_section(name, head, _figure(name, head, draws)) for name, head, draws in _pictures(found)),
        _section("wrong", "What was wrong", _proofs(found.runs)),
        _section("run", "What ran", plain_table("machine, workload and host", _what_ran(found))),
        _section("again", "To have it again", _again(found)),
        f"</main>\n<script>\n{script}</script>\n</body>\n</html>\n",
    ]
    return "".join(parts)


def _section(name: str, head: str, inside: str) -> str:
    if not inside:
        return ""
    opened = f'<section id="{name}" aria-labelledby="{name}-head">\n<h2 id="{name}-head">{head}</h2>\n'
    return f"{opened}{inside}</section>\n"


def _pictures(found: Found) -> Iterable[tuple[str, str, Callable[..., None]]]:
    """Give the pictures that this result has: name, what it is called, what draws it."""
    if isinstance(found, Repeats):
        yield "ratios", "Ratios to the first design", lambda file, write: draw_repeats(found, file, write)
        return
    yield "overview", "Shootdowns, changes, sites and memory", lambda file, write: draw(found, file, write)
    if any(run.timeline.end_ns for run in found.runs):
        yield (
            "timeline",
            "When each design flushed",
            lambda file, write: draw_timeline(found.runs, file, write),
        )


def _figure(name: str, head: str, draws: Callable[..., None]) -> str:
    """Draw a picture into the page, in a frame in which it zooms."""
    drawn: list[bytes] = []
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        draws(f"{name}.svg", lambda _, data: drawn.append(data))
    text = drawn[0].decode()
    text = COMMENT.sub("", text[text.index("<svg") :])
    text = DIGITS.sub(r"\1", text)
    text = IDENTITY.sub(rf"\g<1>{name}-", text)  # of several pictures in one page
    text = text.replace("<svg ", f'<svg role="img" aria-label="{head}" ', 1)
    return (
        f'<figure>\n<p><button type="button" value="2" aria-label="zoom in: {head}">+</button> '
        f'<button type="button" value="0.5" aria-label="zoom out: {head}">&minus;</button> '
        f'<output aria-live="polite" class="quiet"></output></p>\n'
        f'<div class="scroll" tabindex="0" role="group" aria-label="{head}">\n{text}</div>\n</figure>\n'
    )


def _proofs(runs: Sequence[Result]) -> str:
    """Give the first violations as proofs."""
    found = [(run, violation) for run in runs for violation in run.violations]
    text = ""
    for run, violation in found[:PROOFS]:
        told = violation_proof(
            {"design": run.design, "seed": run.seed, **violation}, violation.get("events", ())
        )
        text += f'<pre tabindex="0">{escape(told.plain)}</pre>\n'
    more = len(found) - PROOFS
    return text + (f"<p>{more:,} more in the result's JSON.</p>\n" if more > 0 else "")


def _what_ran(found: Found) -> Mapping[str, str]:
    run, host = found.runs[0], found.host
    seeds = sorted({one.seed for one in found.runs})
    rows = {
        "machine": f"{run.machine}, {run.machine_text}",
        "scale": run.scale_text,
        "changed": run.overrides_text,
        "memory": run.memory_text,
        "workload": f"{run.workload}, {run.workload_text}",
        "length": run.length_text,
        "design": "; ".join(
            dict.fromkeys(
                f"{one.design} ({', '.join(f'{k}={v}' for k, v in one.design_parameters.items())})"
                for one in found.runs
                if one.design_parameters
            )
        ),
        "seeds": ", ".join(map(str, seeds)),
        "leases": str(run.leases),
        "oracle": run.check,
        "host": ", ".join(f"{name} {value}" for name, value in host.items()),
        "versions": ", ".join(f"{name} {value}" for name, value in found.versions.items()),
    }
    return {name: value for name, value in rows.items() if value}


def _again(found: Found) -> str:
    words = " ".join(found.command)
    shown = f'<pre tabindex="0">{escape(words)}</pre>\n' if words else ""
    kept = f"<p>Results: <code>luf report {escape(found.folder)}</code></p>\n" if found.folder else ""
    return shown + kept
