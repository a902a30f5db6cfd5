"""One command tests the project on the Python that is asked for, and the forge asks for each that setup.cfg
names.
"""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
# A Python that only knows its version and how to make an environment of itself; it notes what it was asked.
INTERPRETER = """#!/bin/sh
echo "$0 $*" >> "{log}"
case "$*" in
    *"-m venv"*) for last; do :; done; mkdir -p "$last/bin"
        cp "$0" "$last/bin/python"; : > "$last/bin/pip"; chmod +x "$last/bin/pip" ;;
    *sys.version*) echo "{version}" ;;
esac
"""


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def interpreter(folder: Path, version: str) -> Path:
    """Write an interpreter of that version."""
    file = folder / f"python{version}"
    file.write_text(INTERPRETER.format(log=folder / "log", version=version))
    file.chmod(0o755)
    return file


def make_setup(project: Path, **env: str) -> str:
    """Run `make setup`, and give the version of the Python in .venv afterwards."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHON"} | env
    subprocess.run(["make", "setup"], cwd=project, env=env, check=True, capture_output=True)
    asked = [project / ".venv" / "bin" / "python", "-c", "sys.version"]
    return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def project(tmp_path):
    """A folder with what `make setup` reads."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("Makefile", "setup.cfg", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    return folder


def test_the_python_that_is_asked_for_is_the_one_that_tests(project, tmp_path):
    """PYTHON= makes .venv, and makes it anew if another version is there; without it .venv stays."""
    old, new = interpreter(tmp_path, "3.12.1"), interpreter(tmp_path, "3.13.0")
    assert make_setup(project, PYTHON=str(old)) == "3.12.1"
    assert make_setup(project, PYTHON=str(new)) == "3.13.0"
    assert make_setup(project) == "3.13.0"
    made = [line for line in (tmp_path / "log").read_text().splitlines() if "-m venv" in line]
    assert [line.split()[0] for line in made] == [str(old), str(new)]


def test_a_python_that_is_too_old_is_refused(project):
    """In one sentence that names it; nothing is made."""
    env = os.environ | {"PYTHON": "/no/such/python"}
    run = subprocess.run(["make", "setup"], cwd=project, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "luf needs Python 3.11 or newer (/no/such/python: " in run.stderr
    assert not (project / ".venv").exists()


def test_the_workflow_tests_each_python_that_is_named():
    """The matrix is the classifiers of setup.cfg; each runs .ci/run with the Python that was set up, and has
    an end.
    """
    text = WORKFLOW.read_text()
    (matrix,) = re.findall(r"^ +python: \[(.*)\]$", text, re.M)
    named = re.findall(r"Python :: (3\.\d+)$", setup_cfg()["metadata"]["classifiers"], re.M)
    assert re.findall(r"3\.\d+", matrix) == named
    assert "run: .ci/run\n        env:\n          PYTHON: python\n" in text
    assert "timeout-minutes: 20" in text
    least = setup_cfg()["options"]["python_requires"].removeprefix(">=")
    assert named[0] == least
    assert sys.version_info >= tuple(int(number) for number in least.split("."))


def test_the_cache_of_compiled_code_hangs_on_every_room_that_is_compiled():
    """A room that is left out of the key would be compiled anew when its files change, and never saved."""
    from cpus.source_hash import ROOMS

    (key,) = re.findall(r"key: luf-.*hashFiles\((.*)\)", WORKFLOW.read_text())
    assert {f"{room}/**" for room in ROOMS if room != "benchmarks"} <= set(re.findall(r"'([^']*)'", key))


def test_the_licence_is_there_and_named():
    """The whole text, and the same name where packages look for it."""
    assert setup_cfg()["metadata"]["license"] == "Apache-2.0"
    text = (ROOT / setup_cfg()["metadata"]["license_files"]).read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
