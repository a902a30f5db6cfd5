"""Pages that are published (README.md, docs/) are written from committed sources alone: whoever reads a
figure there can have it again from the commit that the page names.

A draft goes to any other path. Pages have lines as long as those of the sources. Left out: files that git
does not know, since nothing that is committed reads them.
"""

from __future__ import annotations

import re
import subprocess
import textwrap
from pathlib import Path

COLUMNS = 110
ITEM = re.compile(r"- |\d+\. ")
KEPT = re.compile(r"    |[|#<!]")  # code, tables, headings, comments, pictures
ROOT = Path(__file__).parents[1]
SHOWN = 3  # changed files in the sentence
GIT_BOUND_S = 30


class DirtyTree(ValueError):
    """A page that may not be published: one sentence with page, rule, changed files and the way out."""


def is_published(page: Path) -> bool:
    """Tell whether a file is one of the project's pages, wherever the path to it comes from."""
    place = page.resolve()
    return place == ROOT / "README.md" or place.is_relative_to(ROOT / "docs")


def check_page(page: str | Path, draft: str) -> None:
    """Refuse, before anything runs, to publish a page while the sources have changes that are not committed.

    `draft` says how to write it elsewhere. Raises DirtyTree.
    """
    if not is_published(Path(page)):
        return
    changed = changed_files()
    if changed:
        more = f" and {len(changed) - SHOWN} more" * (len(changed) > SHOWN)
        got = ", ".join(changed[:SHOWN]) + more
        raise DirtyTree(
            f"'{page}' must be written from committed sources (git status: {got}); commit, "
            f"or write a draft, {draft}"
        )


def changed_files() -> list[str]:
    """Give what git says of the files that it knows and that have changed, or of itself if it cannot say."""
    command = ["git", "status", "--porcelain", "--untracked-files=no"]
    try:
        answer = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=GIT_BOUND_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return [str(error)]
    if answer.returncode:
        return [(answer.stderr.strip() or "failed").splitlines()[0]]
    return [line[3:] for line in answer.stdout.splitlines()]


def filled(page: str) -> str:
    """Fill the paragraphs and list items of a Markdown page; code, tables, headings and comments stay as they
    are.
    """
    lines: list[str] = []
    paragraph: list[str] = []
    code = False
    for line in [*page.splitlines(), ""]:
        fence = line.startswith("```")
        stays = code or fence or not line.strip() or KEPT.match(line)
        if stays or ITEM.match(line):
            lines += _filled(paragraph)
            paragraph = []
        (lines if stays else paragraph).append(line)
        code ^= fence
    return "\n".join(lines)


def _filled(paragraph: list[str]) -> list[str]:
    """Fill one paragraph, or one item of a list; what is empty stays so."""
    words = " ".join(" ".join(paragraph).split())
    indent = " " * len(item[0]) if (item := ITEM.match(words)) else ""
    return textwrap.wrap(
        words, COLUMNS, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
