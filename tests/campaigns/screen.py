"""Renew the screens and the picture of README.md and docs/screen.md, and the table of how far runs differ.

    python -m tests.campaigns.screen [--seeds 6]

Runs `luf compare --seeds N` as a user does. README.md shows what it prints, docs/screen.md the screen of the
one seed whose change of shootdowns is the median one, which is drawn, too, and the changes from vanilla to
LUF of all seeds. A result that is stored is taken with --from.
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

from emulator import Comparison, Repeats, compare, draw, read_result, repeats_text, report_text
from emulator.published import DirtyTree, check_page
from emulator.report import talk
from emulator.report.text import percent

ROOT = Path(__file__).parents[2]
SEVERAL, ONE = "<!-- screen: luf compare --seeds 6 -->", "<!-- screen: luf compare -->"
LUF = "import sys; from emulator.cli import main; sys.exit(main())"
ROWS = (
    ("TLB shootdowns", "tlb_shootdowns", talk.change(talk.TLB_SHOOTDOWNS)),
    ("dTLB-load-misses", "dtlb_load_misses", talk.change(talk.DTLB_LOAD_MISSES)),
    ("dTLB-store-misses", "dtlb_store_misses", talk.change(talk.DTLB_STORE_MISSES)),
    ("iTLB-load-misses", "itlb_load_misses", talk.change(talk.ITLB_LOAD_MISSES)),
    ("runtime", "runtime_mean_ns", talk.runtime_change()),
)


def run(seeds: int, out: str) -> None:
    """Run `luf compare --seeds N` as a user does; the result is out/latest."""
    command = [sys.executable, "-c", LUF, "compare", "--seeds", str(seeds), "--out", out]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def pairs(found: Repeats) -> list[Comparison]:
    """Give the runs of each seed as one comparison."""
    seeds = sorted({one.seed for one in found.runs})
    return [
        compare([one for design in found.designs for one in found.of(design) if one.seed == seed],
                host=found.host, folder=found.folder)
        for seed in seeds
    ]  # fmt: skip


def read_repeats(folder: str) -> Repeats:
    """Read a result of several seeds. Raises ValueError for another one."""
    found = read_result(folder)
    if not isinstance(found, Repeats):
        raise ValueError(f"'--from' must be a result of --seeds N (got {folder!r})")
    return found


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
    parser.add_argument("--from", dest="stored", metavar="FOLDER", help="run nothing: take what is stored")
    parser.add_argument(
        "--draft",
        metavar="DIR",
        type=Path,
        help="write copies of the pages there; default: the pages themselves, from committed sources only",
    )
    options = parser.parse_args(arguments)
    try:
        pages = places(options.draft)
    except DirtyTree as dirty:
        sys.stderr.write(f"screen: {dirty}\n")
        return 2
    with tempfile.TemporaryDirectory() as out:
        if not options.stored:
            run(options.seeds, out)
        found = read_repeats(options.stored or f"{out}/latest")
    comparisons = pairs(found)
    shown = sorted(comparisons, key=lambda comparison: change(comparison, "tlb_shootdowns"))[
        (len(comparisons) - 1) // 2
    ]
    fence = r"```\n.*?\n```"
    renew(pages["README.md"], SEVERAL, fence, fenced(repeats_text(found)))
    renew(pages["screen.md"], ONE, fence, fenced(report_text(shown)))
    renew(pages["screen.md"], "<!-- spread -->", r"(?:\|[^\n]*\n)+", spread(comparisons) + "\n")
    draw(shown, pages["compare.png"])
    return 0


def fenced(screen: str) -> str:
    """Give a screen as it stands in a page; its folder is that of a first run."""
    text = re.sub(r"luf report \S+", "luf report runs/0001-compare", screen).rstrip()
    return f"```\n{text}\n```"


if __name__ == "__main__":
    sys.exit(main())
