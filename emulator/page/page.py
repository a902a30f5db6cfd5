"""Write a page of a Comparison, or of repeated runs: figures as a table, pictures, what was wrong, and what
it takes to have it again.

    write_page(read_result("runs/latest"), "page.html")

What users have named is escaped. The same result gives the same bytes. Left out: counters by CPU, which the
JSON has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from emulator.output_file import write_atomically
from emulator.page.frame import figure, section, whole_page
from emulator.page.tables import figures_table, plain_table
from emulator.repeats.plot import draw_repeats
from emulator.repeats.result import Repeats
from emulator.report.plot import draw
from emulator.report.proof import violation_proof
from emulator.report.timeline_plot import draw_timeline
from emulator.result import Comparison, Result
from emulator.verdict import of_comparison, of_repeats

PROOFS = 4  # shown; the result's JSON has all
EACH = 8  # values of what runs differ in

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
    sections = [
        section("figures", "Figures", figures_table(found)),
        *(section(name, head, figure(name, head, draws)) for name, head, draws in _pictures(found)),
        section("wrong", "What was wrong", proofs(found.runs)),
        section(
            "run",
            "What ran",
            plain_table("machine, workload and host", what_ran(found.runs, found.host, found.versions)),
        ),
        section("again", "To have it again", again(found)),
    ]
    return whole_page(title, verdict.code, verdict.said, "figures", "".join(sections))


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


def proofs(runs: Sequence[Result]) -> str:
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


def what_ran(
    runs: Sequence[Result], host: Mapping[str, object], versions: Mapping[str, str]
) -> dict[str, str]:
    """Say of machine, workload and host what there is to say; of what runs differ in, each value."""

    def each(say: Callable[[Result], str]) -> str:
        said = [text for text in dict.fromkeys(map(say, runs)) if text]
        return "; ".join(said[:EACH]) + f"; and {len(said) - EACH:,} more" * (len(said) > EACH)

    rows = {
        "machine": each(lambda run: f"{run.machine}, {run.machine_text}"),
        "scale": each(lambda run: run.scale_text),
        "changed": each(lambda run: run.overrides_text),
        "memory": each(lambda run: run.memory_text),
        "workload": each(lambda run: f"{run.workload}, {run.workload_text}"),
        "length": each(lambda run: run.length_text),
        "design": each(_parameters),
        "seeds": ", ".join(map(str, sorted({run.seed for run in runs}))),
        "leases": each(lambda run: str(run.leases)),
        "oracle": each(lambda run: run.check),
        "host": ", ".join(f"{name} {value}" for name, value in host.items()),
        "versions": ", ".join(f"{name} {value}" for name, value in versions.items()),
    }
    return {name: value for name, value in rows.items() if value}


def _parameters(run: Result) -> str:
    given = ", ".join(f"{name}={value}" for name, value in run.design_parameters.items())
    return f"{run.design} ({given})" if given else ""


def again(found: Found) -> str:
    """Give the command that repeats it, and the one that shows it."""
    words = " ".join(found.command)
    shown = f'<pre tabindex="0">{escape(words)}</pre>\n' if words else ""
    kept = f"<p>Results: <code>luf report {escape(found.folder)}</code></p>\n" if found.folder else ""
    return shown + kept
