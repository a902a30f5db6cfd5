"""docs/debugging.md: each of its commands runs, and its design says what the page says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "debugging.md").read_text()
COMMANDS = re.findall(r"^    ((?:NUMBA_DISABLE_JIT=1 )?luf .*)$", TEXT, re.M)


def run(command: str, folder: Path) -> subprocess.CompletedProcess:
    """Type a command of the page in a folder."""
    *settings, _, words = re.fullmatch(r"(?:(NUMBA_DISABLE_JIT)=1 )?(luf) (.*)", command).groups()
    return subprocess.run(
        [sys.executable, "-m", "emulator", *shlex.split(words)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | {name: "1" for name in settings if name},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_page_has_commands():
    assert len(COMMANDS) == 3


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_runs(command, tmp_path):
    done = run(command, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "no violation" in done.stdout


def test_the_design_says_whom_it_interrupts(tmp_path):
    (source,) = re.findall(r"^```python\n(.*?)^```", TEXT, re.M | re.S)
    (tmp_path / "talks.py").write_text(source)
    done = run(COMMANDS[0].replace("run linux", "run talks.py:Talks"), tmp_path)
    assert done.returncode == 0, done.stderr
    lines = re.findall(
        r"^trace [\d,]+ ns, cpu\d, task \d+ in hook shootdown: shootdown of mm \d+: \d+ CPUs$",
        done.stderr,
        re.M,
    )
    assert len(lines) > 10
