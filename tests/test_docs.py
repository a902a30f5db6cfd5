"""What the documents name exists, what they ask the reader to type works, and their Python runs."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from emulator.cli_arguments import parser

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path
    for path in (
        *ROOT.glob("*.md"),
        *(file for room in ("docs", "emulator") for file in (ROOT / room).rglob("*.md")),
    )
)
COLUMNS = 110
README_WORDS = 1000
ROOMS = ("inputs", "cpus", "allocator", "designs", "workloads", "emulator")
ROOMS += ("tests", "benchmarks", "examples", "docs")
LINK = re.compile(r"\]\(([^)\s]+)\)")
FILE = re.compile(rf"\b(?:{'|'.join(ROOMS)})/[\w/.-]*\w\.(?:py|md|toml|png|out|c)\b")
FUNCTION = re.compile(r"`(?:[\w.]+\.)?([a-z_][a-z0-9_]*)(?:\([^`]*\))?`")
TAG = re.compile(r"<a id=\"([\w-]+)\">")


def prose(text: str) -> str:
    """Give a page without its code: fenced and indented blocks become empty lines."""
    text = re.sub(r"^```.*?^```$", lambda block: "\n" * block[0].count("\n"), text, flags=re.M | re.S)
    return re.sub(r"(?<=\n\n)(?:    .*\n|\n)+", lambda block: "\n" * block[0].count("\n"), text)


def anchors(document: Path) -> set[str]:
    """Give what `document.md#...` may name: headings as GitHub makes anchors of them, and explicit ones."""
    text = document.read_text()
    headings = re.findall(r"^#+ (.+)$", prose(text), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings} | set(
        TAG.findall(text)
    )


def dead_links(text: str, document: Path) -> list[str]:
    """Give the links of a page, which lies at `document`, that lead to no file of the project, or to no
    heading of it.
    """
    dead = []
    for link in (link for link in LINK.findall(prose(text)) if not re.match(r"\w+:", link)):
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        there = target.exists() and target.resolve().is_relative_to(ROOT)
        if not there or (anchor and (target.suffix != ".md" or anchor not in anchors(target))):
            dead.append(link)
    return dead


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    """To a file of the project, and to a heading in it where one is named."""
    assert dead_links(document.read_text(), document) == []


def test_planted_dead_links_are_found():
    """A page that is not there, one that lies beside the project, a heading that is not there, an anchor in
    what has none; not what is code, or lies elsewhere.
    """
    text = """[a](docs/nowhere.md) and [b](docs/design.md#no-such-heading), [c](#nor-here),
[d](../elsewhere.md), [e](setup.cfg#metadata), [the README](README.md), ![f](docs/nowhere.png),
[a heading](docs/design.md#scale), [the web](https://example.org/nothing)

    [g](in/code.md)
"""
    dead = ["docs/nowhere.md", "docs/design.md#no-such-heading", "#nor-here", "../elsewhere.md"]
    assert dead_links(text, ROOT / "README.md") == [*dead, "setup.cfg#metadata", "docs/nowhere.png"]


def test_every_page_can_be_reached_from_the_readme():
    """A stranger who follows links finds each page."""
    seen, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop().resolve()
        if page not in seen and page.suffix == ".md" and page.exists():
            seen.add(page)
            todo += [page.parent / link.partition("#")[0] for link in LINK.findall(prose(page.read_text()))]
    assert set(DOCUMENTS) - seen == set()


def test_the_readme_is_short():
    """What visitors read before they know whether to stay; the screen and addresses of links not counted."""
    text = re.sub(r"\]\([^)]*\)", "]", (ROOT / "README.md").read_text())
    assert len(re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S).split()) <= README_WORDS


def long_lines(text: str) -> list[str]:
    """Give the lines of prose of a page that are too long; tables and links that cannot be broken may be."""
    return [
        line
        for line in prose(text).splitlines()
        if len(line) > COLUMNS and not line.startswith("|") and " " in line[:COLUMNS].strip()
    ]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_lines_of_prose_fit(document):
    """Into as many columns as those of the sources."""
    assert long_lines(document.read_text()) == []


def test_a_planted_long_line_is_found():
    """Not one of a table or of code."""
    long = "word " * COLUMNS
    text = f"{long}\n\n| {long} |\n\n```\n{long}\n```\n\n    {long}\n\n- short\n"
    assert long_lines(text) == [long]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_are_named_exist(document):
    """`allocator/vmscan.py` in the text is a file."""
    for name in FILE.findall(document.read_text()):
        assert (ROOT / name).exists(), name


def test_functions_that_tell_the_life_of_things_exist():
    """Every function that docs/design.md names in an access's, a fault's or a shootdown's life is defined
    somewhere.
    """
    text = (ROOT / "docs" / "design.md").read_text()
    lives = text[text.index("## The life of one access") : text.index("## Principles")]
    source = "\n".join(path.read_text() for room in ROOMS[:5] for path in (ROOT / room).rglob("*.py"))
    names = {name for name in FUNCTION.findall(lives) if "_" in name}
    assert len(names) > 25
    # a field is named in quotes
    missing = {name for name in names if not re.search(rf"\bdef {name}\b|\"\w*{name}\"", source)}
    assert missing == set()


def commands() -> list[str]:
    """Give the luf commands of all documents: lines of indented blocks that begin with `luf`, with those
    that go on behind a backslash, and inline ones.
    """
    found = []
    for document in DOCUMENTS:
        text = re.sub(r"\\\n *", "", document.read_text())
        found += re.findall(r"^    (luf .+)$", text, re.M)
        found += re.findall(r"`(luf [a-z]+ [^`]+)`", text)
    return [command.partition("#")[0].partition(";")[0].strip() for command in found]


def test_commands_are_accepted_by_the_parser():
    """Each command of the documents parses: its verb and all options exist."""
    assert len(commands()) >= 12
    for command in commands():
        words = shlex.split(command)[1:]
        if "--help" not in words:
            parser().parse_args(words)  # leaves with SystemExit if it does not understand


def test_make_targets_exist():
    """`make demo`, `make test`, `make bench` are in the Makefile."""
    makefile = (ROOT / "Makefile").read_text()
    targets = {
        target
        for document in DOCUMENTS
        for target in re.findall(r"(?:`|^    )make ([a-z]+)", document.read_text(), re.M)
    }
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.M), target
    assert {"demo", "test"} <= targets


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(), re.M | re.S)


def test_the_python_of_the_commands_runs():
    """Ten lines, as they stand, in a process of their own; the table and two clean runs come out."""
    (code,) = blocks(ROOT / "docs" / "commands.md", "python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=390, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "TLB shootdowns" in run.stdout
    assert [line.rsplit(" ", 1)[1] for line in run.stdout.splitlines()[-2:]] == ["True", "True"]


def test_the_machine_of_the_docs_can_be_loaded(tmp_path):
    """docs/machines.md's file is a machine."""
    from emulator import load_machine

    (toml,) = blocks(ROOT / "docs" / "machines.md", "toml")
    file = tmp_path / "half.toml"
    file.write_text(toml)
    assert load_machine(file, scale=512).cpus == tomllib.loads(toml)["cpus"]


def test_the_workloads_of_the_docs_are_sound(tmp_path):
    """The Python of docs/workload.md makes workloads that can be run; its TOML makes the same as the script
    in Python.
    """
    from workloads import validate
    from workloads.script_toml import script_from_toml

    document = ROOT / "docs" / "workload.md"
    made = []
    for code in (code for code in blocks(document, "python") if "workload =" in code):
        names: dict[str, object] = {}
        exec(code, names)
        validate(names["workload"])
        made.append(names["workload"])
    assert [workload.name for workload in made] == ["example", "five"]
    (toml,) = blocks(document, "toml")
    file = tmp_path / "example.toml"
    file.write_text(toml)
    (ours,), (theirs,) = made[0].processes, script_from_toml(file).workload().processes
    assert (ours.regions, ours.cpus) == (theirs.regions, theirs.cpus)
    assert [rows.tolist() for rows in ours.threads] == [rows.tolist() for rows in theirs.threads]


def labels_of(screen: str) -> list[str]:
    """Give the words that begin the lines of a screen, where something begins there."""
    return [label for line in screen.splitlines() if (label := line[:20].strip())]


def screens() -> dict[str, tuple[str, str]]:
    """Give the screens that pages show, each with what the program of today prints in its place."""
    from emulator.repeats.result import repeats
    from emulator.repeats.text import repeats_text
    from emulator.report.text import report_text
    from tests.emulator.fixed import comparison, run

    several = [run(design, seed=seed) for seed in (1, 2) for design in ("linux", "luf")]
    return {
        "README.md": ("luf compare --seeds 6", repeats_text(repeats(several, folder="runs/0001-compare"))),
        "docs/screen.md": ("luf compare", report_text(comparison())),
    }


@pytest.mark.parametrize("page", screens())
def test_the_screen_of_a_page_is_what_the_program_prints(page):
    """Line by line the same words as the report of today, whatever the figures."""
    command, today = screens()[page]
    text = (ROOT / page).read_text()
    shown = text.split(f"<!-- screen: {command} -->\n```\n")[1].split("```")[0]
    for label in labels_of(today):
        assert label.split()[0] in {one.split()[0] for one in labels_of(shown)} or label[0].isdigit(), label


@pytest.mark.parametrize("page", screens())
def test_every_line_of_the_screen_is_explained(page):
    """docs/screen.md has each label of the report in its table."""
    text = (ROOT / "docs" / "screen.md").read_text()
    explained = {
        name for cell in re.findall(r"^\| (`[^|]*) \|", text, re.M) for name in re.findall(r"`([^`]*)`", cell)
    }
    for label in labels_of(screens()[page][1]):
        label = re.split(r"  +|, mean of|: ", label)[0]
        known = any(label.split()[0] == name.split()[0] for name in explained)
        assert known or re.match(r"\d|[di]TLB-|more", label), label


def test_every_exit_code_is_documented():
    """Those that the program returns: in the table, and in --help."""
    from emulator import verdict
    from emulator.cli_parts import EXIT_CODES
    from emulator.ending import SIGNALLED, WORDS

    table = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8").partition("## Exit codes")[2]
    codes = [getattr(verdict, name) for name in ("CLEAN", "DIRTY", "BAD_INPUT", "FAILED")]
    assert [int(number) for number in re.findall(r"^\| (\d) \|", table, re.M)] == codes
    (signals,) = re.findall(r"^\| 128 \+ N \| (.*)", table, re.M)
    assert {int(number) for number in re.findall(r"\d+", signals)} == {SIGNALLED + one for one in WORDS}
    told = [int(number) for number in re.findall(r"\d+", EXIT_CODES.partition("LUF_DEBUG")[0])]
    assert told == [*codes, *(SIGNALLED + one for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))]
