"""Run the talk's experiment with several seeds, and put what came out into the pages: screen and picture into
the README, the spread into docs/screen.md.

    python -m tests.campaigns.screen [--seeds 6]

To be run when the engine has changed. The screen is that of the run with the median change of shootdowns; the
table has the changes from vanilla to LUF of all seeds.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from emulator import Comparison, draw, read_comparison, report_text
from emulator.published import DirtyTree, check_page
from emulator.report import talk
from emulator.report.text import percent

ROOT = Path(__file__).parents[2]
LUF = "import sys; from emulator.cli import main; sys.exit(main())"
ROWS = (
    ("TLB shootdowns", "tlb_shootdowns", talk.change(talk.TLB_SHOOTDOWNS)),
    ("dTLB-load-misses", "dtlb_load_misses", talk.change(talk.DTLB_LOAD_MISSES)),
    ("dTLB-store-misses", "dtlb_store_misses", talk.change(talk.DTLB_STORE_MISSES)),
    ("iTLB-load-misses", "itlb_load_misses", talk.change(talk.ITLB_LOAD_MISSES)),
    ("runtime", "runtime_mean_ns", talk.runtime_change()),
)


def one(seed: int, out: str) -> Comparison:
    """Run `luf compare --seed N` as a user does."""
    command = [sys.executable, "-c", LUF, "compare", "--seed", str(seed), "--out", out]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return read_comparison(Path(out) / "latest")


def change(comparison: Comparison, name: str) -> float:
    """Give the change of one figure from vanilla to LUF."""
    return float(getattr(comparison.run("luf"), name) / getattr(comparison.run("linux"), name) - 1)


def spread(comparisons: list[Comparison]) -> str:
    """Give the table of changes, lowest, median and highest."""
    lines = [
        f"| seeds 1 to {len(comparisons)} | lowest | median | highest | the talk |",
        "|---|---|---|---|---|",
    ]
    for label, name, said in ROWS:
        changes = [change(comparison, name) for comparison in comparisons]
        lines.append(
            "| "
            + " | ".join(
                [label, *map(percent, (min(changes), statistics.median(changes), max(changes), said))]
            )
            + " |"
        )
    return "\n".join(lines)


def replaced(text: str, after: str, old: str, new: str) -> str:
    """Replace what the pattern `old` matches right after a marker."""
    changed, count = re.subn(
        rf"({re.escape(after)}\n){old}", lambda match: match[1] + new, text, count=1, flags=re.S
    )
    if count != 1:
        raise ValueError(f"'page' must have what follows {after!r} once (found {count})")
    return changed


def places(draft: Path | None) -> dict[str, Path]:
    """Give the file of each page; with a draft, copies in that folder. Raises DirtyTree."""
    pages = {"README.md": ROOT / "README.md"} | {
        name: ROOT / "docs" / name for name in ("screen.md", "compare.png")
    }
    for page in pages.values() if draft is None else ():
        check_page(page, "--draft DIR")
    if draft is None:
        return pages
    draft.mkdir(parents=True, exist_ok=True)
    return {name: Path(shutil.copy(page, draft)) for name, page in pages.items()}


def renew(page: Path, after: str, old: str, new: str) -> None:
    """Put a new part into a page."""
    page.write_text(replaced(page.read_text(), after, old, new))


def main(arguments: list[str] | None = None) -> int:
    """Run, and rewrite README.md, docs/screen.md and docs/compare.png."""
    parser = argparse.ArgumentParser(
        description="put a fresh screen and picture into the README, and the spread into docs/screen.md"
    )
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument(
        "--draft",
        metavar="DIR",
        type=Path,
        help="write copies of the pages there; default: the pages themselves, from committed sources only",
    )
    options = parser.parse_args(arguments)
    seeds = range(1, options.seeds + 1)
    try:
        pages = places(options.draft)
    except DirtyTree as dirty:
        sys.stderr.write(f"screen: {dirty}\n")
        return 2
    with tempfile.TemporaryDirectory() as out:
        comparisons = [one(seed, out) for seed in seeds]
    shown = sorted(comparisons, key=lambda comparison: change(comparison, "tlb_shootdowns"))[
        (len(comparisons) - 1) // 2
    ]
    screen = re.sub(r"luf report \S+", "luf report runs/0001-compare", report_text(shown)).rstrip()
    renew(pages["README.md"], "<!-- screen: luf compare -->", r"```\n.*?\n```", f"```\n{screen}\n```")
    renew(pages["screen.md"], "<!-- spread -->", r"(?:\|[^\n]*\n)+", spread(comparisons) + "\n")
    draw(shown, pages["compare.png"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
