"""What notebooks show of a result: verdict, what ran, and the figures. Colours are such that they can be read
on light and on dark, since a notebook's theme need not be that of the reader's system.
"""

from __future__ import annotations

from html import escape

from emulator.page.tables import figures_table
from emulator.repeats.result import Repeats
from emulator.result import Comparison, Result
from emulator.verdict import of_comparison, of_repeats

STYLE = """\
<style>
.luf { max-width: 60rem; } .luf .scroll { overflow-x: auto; } .luf table { border-collapse: collapse; }
.luf caption { text-align: left; } .luf th, .luf td { padding: .1rem .7rem .1rem 0; text-align: right; }
.luf th[scope=row] { text-align: left; font-weight: normal; }
.luf .good { color: #1a8745; } .luf .bad { color: #d9363e; } .luf .quiet { opacity: .75; }
</style>
"""


def small_html(found: Result | Comparison | Repeats) -> str:
    """Give a result as a piece of HTML."""
    if isinstance(found, Result):
        found = Comparison(runs=[found])
    run = found.runs[0]
    verdict = of_repeats(found) if isinstance(found, Repeats) else of_comparison(found)
    seeds = ", ".join(map(str, sorted({one.seed for one in found.runs})))
    ran = [run.machine, run.overrides_text, run.workload, run.length_text, f"seed {seeds}"]
    return (
        f'<div class="luf">\n{STYLE}<p>{escape(" · ".join(filter(None, ran)))}</p>\n{figures_table(found)}'
        f'<p class="{"bad" if verdict.code else "good"}">{escape(verdict.said)}</p>\n</div>\n'
    )
