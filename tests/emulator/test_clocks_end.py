"""Products of numbers that are bounded one by one: no clock and no counter wraps. The run is refused, or
stopped with a sentence.
"""

from __future__ import annotations

import json

import pytest

from allocator.cpu import TIME_MAX_NS
from emulator import load_machine
from emulator.cli import main
from emulator.experiment import run_design
from emulator.judge.bad_access import OutOfTime
from emulator.verdict import BAD_INPUT, CLEAN
from workloads import Region, Script

MOST = 2**32 - 1  # accesses of a row to each page
DEAREST = 10**9
ONE = f'[[["load", "h", 0, 64, {MOST}]]]'
TWO = f'[[["load", "h", 0, 64, {MOST}]], [["load", "h", 0, 64, {MOST}]]]'
POPULATED = f'[[["populate", "h"], ["load", "h", 0, 64, {MOST}]]]'
OVER = "takes the run beyond 10,000,000 s of virtual time, where clocks end"
HOST = f"{{cores = 1, turn_ns = {DEAREST}}}"  # 7 others take their turns of its only core


def run(tmp_path, threads, *changes):
    """Run `luf run` on 8 CPUs with costs that are changed."""
    file = tmp_path / "count.toml"
    region = '[[region]]\nname = "h"\npages = 64\n'
    file.write_text(f'{region}[[process]]\nname = "p"\nthreads = {threads}\n')
    options = ["--machine", "guest-8cpu", "--leases", "1", "--out", str(tmp_path / "runs")]
    options += [word for change in changes for word in ("--set", change)]
    options += ["--json", str(tmp_path / "result.json")]
    return main(["run", "linux", "--workload", str(file), *options])


@pytest.mark.parametrize(
    ("threads", "changes"),
    [
        (ONE, [f"costs.access_tenths={DEAREST}"]),
        (POPULATED, [f"costs.{name}={DEAREST}" for name in ("access_tenths", "line_dram_tenths", "walk")]),
        (TWO, ["costs.access_tenths=20000000", f"host={HOST}"]),
    ],
    ids=["access", "access, line and walk", "stolen by others"],
)  # fmt: skip
def test_a_run_that_takes_too_long_is_stopped(tmp_path, capsys, threads, changes):
    """Virtual time wrapped, and a run of -182,325,422,564,250 us was clean."""
    assert run(tmp_path, threads, *changes) == BAD_INPUT
    assert OVER in capsys.readouterr().err


def test_a_long_run_ends_as_it_should(tmp_path):
    """A hundredth of what there is: its runtime is the product."""
    tenths = 10 * TIME_MAX_NS // (64 * MOST) // 100
    assert run(tmp_path, ONE, f"costs.access_tenths={tenths}") == CLEAN
    (result,) = json.loads((tmp_path / "result.json").read_text())["runs"]
    (runtime,) = result["runtime_ns"]
    assert 0 <= runtime - 64 * MOST * tenths // 10 < 10**6


def test_a_cost_of_nothing_is_refused_where_it_bounds_a_counter(tmp_path, capsys):
    """Accesses that took no time could be counted until the counter wraps."""
    assert run(tmp_path, ONE, "costs.access_tenths=0") == BAD_INPUT
    assert "'costs.access_tenths' must be at least 1 (got 0)" in capsys.readouterr().err


def test_what_ships_on_a_machine_of_yours_is_bad_input_too():
    """Who wrote the workload does not matter: it asks for more time than there is."""
    shipped = Script("churn", regions=[Region("h", 64, writable=True)])
    shipped.process("p", [lambda t: [t.load("h", count=MOST)]])
    machine = load_machine("guest-8cpu", overrides={"costs.access_tenths": DEAREST})
    with pytest.raises(OutOfTime, match=r"virtual time beyond 10,000,000,000,000,000 ns"):
        run_design("linux", machine, shipped.workload(), leases=1)
