"""What the documents name exists, what they tell the reader to type works, and the README's Python runs."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from emulator.cli_arguments import parser

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "emulator" / "golden").glob("*/*.md")),
]
ROOMS = ("cpus", "allocator", "designs", "workloads", "emulator", "tests", "benchmarks", "examples", "docs")
LINK = re.compile(r"\]\(([^)\s]+)\)")
FILE = re.compile(rf"\b(?:{'|'.join(ROOMS)})/[\w/.-]*\w\.(?:py|md|toml|png|out|c)\b")
FUNCTION = re.compile(r"`(?:[\w.]+\.)?([a-z_][a-z0-9_]*)(?:\([^`]*\))?`")
TAG = re.compile(r"<a id=\"([\w-]+)\">")


def anchors(document: Path) -> set[str]:
    """Give what `document.md#...` may name: headings as GitHub makes anchors of them, and explicit ones."""
    text = document.read_text()
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings} | set(
        TAG.findall(text)
    )


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    """To a file of the project, and to a heading in it where one is named."""
    for link in LINK.findall(document.read_text()):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


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
    """Give the luf commands of all documents: lines of indented blocks that begin with `luf`, and inline
    ones.
    """
    found = []
    for document in DOCUMENTS:
        text = document.read_text()
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
        for target in re.findall(r"(?:`|    )make ([a-z]+)", document.read_text())
    }
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.M), target
    assert {"demo", "test"} <= targets


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(), re.M | re.S)


def test_the_readmes_python_runs():
    """Ten lines, as they stand, in a process of their own; the table and two clean runs come out."""
    (code,) = blocks(ROOT / "README.md", "python")
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


def test_every_operation_of_a_workload_is_documented():
    """docs/workload.md names all that rows and scripts can do, and nothing else."""
    from workloads.calls import Calls
    from workloads.rows import OP_NAMES

    text = (ROOT / "docs" / "workload.md").read_text()
    told = {name for cell in re.findall(r"^\| ([A-Z_, ]+) \|", text, re.M) for name in cell.split(", ")}
    assert told == set(OP_NAMES.values()) - {"VISIT"}
    calls = {
        name
        for cell in re.findall(r"^\| [A-Z_, ]+ \| ([^|]*) \|", text, re.M)
        for name in re.findall(r"`(\w+)`", cell)
    }
    assert calls == set(Calls.names()) - {"load", "store", "execute"}


def test_the_screen_of_the_readme_is_what_the_program_prints():
    """Line by line the same words as the report of today, whatever the figures."""
    from emulator.report.text import report_text
    from tests.emulator.fixed import comparison

    text = (ROOT / "README.md").read_text()
    screen = text.split("<!-- screen: luf compare -->\n```\n")[1].split("```")[0]
    labels = [line[:20].strip() for line in report_text(comparison()).splitlines()]
    for label in filter(None, labels):
        assert label.split()[0] in screen, label


def test_the_readme_has_every_exit_code():
    """Those that the program returns, as --help has them."""
    from emulator import cli
    from emulator.cli_arguments import EXIT_CODES

    (sentence,) = re.findall(r"^Exit code 0: .*$", (ROOT / "README.md").read_text(), re.M)
    codes = [cli.CLEAN, cli.DIRTY, cli.BAD_INPUT, cli.FAILED, cli.INTERRUPTED, cli.TERMINATED]
    for text in (sentence, EXIT_CODES.partition("LUF_DEBUG")[0]):
        assert [int(number) for number in re.findall(r"\d+", text)] == codes
