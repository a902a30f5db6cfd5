"""What a command's results become: one run of each design a Comparison, several of each Repeats
(repeats/form.py). How each is written to a folder, shown, drawn and judged, so that who keeps results need
not know which it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from emulator.report.text import heading_text, print_report
from emulator.report.timeline import timeline_text
from emulator.result import Comparison, Result, compare
from emulator.run_folder import RunFolder, write_comparison
from emulator.verdict import Verdict, of_comparison


@dataclass(frozen=True, slots=True)
class Form:
    """`gather(runs, columns, **about)` puts results together; the others take what it gives."""

    gather: Callable[..., Any]
    write: Callable[[RunFolder, Any, dict[str, Any]], None]
    show: Callable[[Any, TextIO, int], None]
    picture: Callable[..., None]  # (found, file, write=...)
    draw: Callable[[Any, RunFolder], None]  # all pictures that a folder has
    verdict: Callable[[Any, int], Verdict]


def _comparison(runs: Sequence[Result], columns: Sequence[str], **about: Any) -> Comparison:
    return compare(runs, **about)


def _draw_comparison(comparison: Comparison, folder: RunFolder) -> None:
    folder.write("timeline.txt", f"{heading_text(comparison)}\n{timeline_text(comparison.runs)}")

    from emulator.report.timeline_plot import draw_timeline

    _comparison_picture(comparison, "picture.png", folder.write)
    draw_timeline(comparison.runs, "timeline.png", folder.write)


def _comparison_picture(*given: Any) -> None:
    from emulator.report.plot import draw

    draw(*given)


ONE_EACH = Form(
    _comparison, write_comparison, print_report, _comparison_picture, _draw_comparison, of_comparison
)
