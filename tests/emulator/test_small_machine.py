"""Schedules that are planted: who is called when, and what is refused. (The machine itself is what the tests
of allocator/ and designs/ stand on.)
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from emulator.small_machine import FILE, FILE_VPN, SmallMachine

ROOT = Path(__file__).parents[2]
PLAYED_TWICE = """
from emulator.small_machine import FILE, FILE_VPN, SmallMachine

for where in ("before_hook", "after_hook"):
    machine = SmallMachine(cpus=2, mms=1, design="eager", region=4)
    machine.run(1)
    machine.run(1, cpu=1)
    machine.use(FILE_VPN, 4)
    seen = []
    getattr(machine, where)("pte_cleared", lambda *_: seen.append(len(machine.interrupts)))
    machine.reclaim_file(FILE)
    print(seen)
"""


@pytest.fixture
def machine():
    """One CPU runs process 1 and has read 16 pages."""
    machine = SmallMachine(cpus=2, mms=1, design="eager")
    machine.run(1)
    machine.run(1, cpu=1)
    machine.use(FILE_VPN, 16)
    yield machine
    machine.ram.close()


@pytest.mark.parametrize(
    ("where", "asked"), [("before_hook", range(16)), ("after_hook", range(1, 17)), ("on_hook", [0] * 16)]
)
def test_others_play_before_after_or_instead_of_a_hook(machine, where, asked):
    """`eager` interrupts cpu1 in this hook, once for each of 16 pages."""
    seen = []

    def play(cpu, mm, vpn, *_):
        seen.append((cpu, mm, vpn, len(machine.interrupts)))

    getattr(machine, where)("pte_cleared", play)
    machine.reclaim_file(FILE)
    assert {one[:2] for one in seen} == {(0, 1)}
    assert sorted(vpn for _, _, vpn, _ in seen) == list(range(FILE_VPN, FILE_VPN + 16))
    assert [count for *_, count in seen] == list(asked)


def test_what_is_planted_does_not_call_itself(machine):
    """A planted call that reaches the same hook gets the design's answer."""
    depth = []

    def play(cpu, mm, vpn, *_):
        depth.append(vpn)
        machine.enter("hook_pte_cleared", cpu, mm, vpn)

    machine.after_hook("pte_cleared", play)
    machine.reclaim_file(FILE)
    assert len(depth) == 16


def test_plain_python_plays_the_same_schedule():
    """NUMBA_DISABLE_JIT=1, for who steps through it; each of these calls itself if it is found planted."""
    env = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", PLAYED_TWICE], env=env, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("[0, 1, 2, 3]\n[1, 2, 3, 4]\n", "")


def test_a_hook_that_there_is_not_is_refused(machine):
    with pytest.raises(ValueError, match=r"'hook' must be one of pte_cleared, .*\(got 'pte_cleard'\)"):
        machine.before_hook("pte_cleard", print)


def test_the_page_shows_what_the_machine_has():
    """Every method that docs/planting.md names exists, and the code it shows is the example's."""
    page = (ROOT / "docs/planting.md").read_text()
    names = set(re.findall(r"`(?:machine\.)?(\w+)(?:\(| = )", page)) - {"truncate_file_page", "try_to_unmap"}
    known = {*dir(SmallMachine), "on_send", "on_wait", "f"}
    assert names - known == set()
    example = (ROOT / "examples/planted.py").read_text()
    code = page.split("```python\n")[1].split("machine.violations()")[0]
    for line in code.splitlines():
        assert line.strip() in example
