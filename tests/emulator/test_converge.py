"""`luf converge` says whether figures hang on how CPUs are ordered. Measured figures stand for the runs."""

from __future__ import annotations

import pytest

from emulator.cli import main
from emulator.sweep.child import Answer
from tests.emulator.fixed import run

CELLS = ["--machine", "guest-8cpu", "--workload", "munmap-storm", "--vary", "design=linux"]
# slice -> shootdowns, flushes, pages of kswapd and of direct reclaim, misses, ns: llama3x15 at 1/256 with a
# disk ten times as fast
MEASURED = {
    500_000: (268_000, 47_945, 566, 434, 918_659, 43_414, 90_525, 302e6),
    10_000: (712_178, 49_697, 428, 572, 971_405, 96_829, 81_864, 233e6),
    5_000: (721_584, 49_199, 429, 571, 977_618, 99_235, 86_552, 232e6),
    2_000: (725_109, 48_702, 431, 569, 979_586, 102_697, 84_264, 230e6),
}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def result_of(experiment, slowed=1.0, slice_ns=None):
    measured = MEASURED[slice_ns or experiment.longest_slice_ns]
    flown, flushes, kswapd, direct, loads, stores, fetches, ns = measured
    counters = {"nr_tlb_remote_flush": flushes, "pgsteal_kswapd": kswapd, "pgsteal_direct": direct}
    return run(
        experiment.design.name,
        tlb_shootdowns=flown,
        dtlb_load_misses=loads,
        dtlb_store_misses=stores,
        itlb_load_misses=fetches,
        runtime_ns=[int(ns * slowed)],
        counters={name: [count] for name, count in counters.items()}
        | {"pgdemote_kswapd": [0], "pgdemote_direct": [0]},
        seed=experiment.seed,
    )


def all_alike(jobs, take, _room):
    """Stand for runs that do not hang on any order."""
    for job in jobs:
        take(job, Answer(result=result_of(job.experiment, slice_ns=5_000)))


def converge(*words, slowed=lambda experiment: 1.0):
    def emulate(jobs, take, _room):
        for job in jobs:
            take(job, Answer(result=result_of(job.experiment, slowed(job.experiment))))

    return main(["converge", *CELLS, *words], emulate=emulate)


def test_the_default_has_converged(capsys):
    """Beside the finest slice, with 1, 2, 4 and 16 leases, each 5 % at most."""
    assert converge() == 0
    said = capsys.readouterr().out
    assert "order    converged: all figures within 5%, the farthest: linux slice=5000" in said
    assert "store misses -3.4 % beside the finest slice" in said
    assert [line.split()[1:3] for line in said.splitlines() if line.startswith("linux ")] == [
        [slice_ns, leases] for slice_ns in ("5000", "2000") for leases in ("1", "2", "4", "16")
    ]


def test_an_order_that_is_known_to_be_off_is_told(capsys):
    """Planted: slices of 0.5 ms, where CPUs work for tens of us between two waits."""
    assert converge("--vary", "slice=500000,2000", "--vary", "leases=2") == 1
    said = capsys.readouterr().out
    assert "order    NOT converged: 7 of 7 figures are more than 5% apart" in said
    assert "linux slice=500000 leases=2: shootdowns -63.0 % beside the finest slice" in said
    assert "direct reclaim -13.5 points beside the finest slice" in said
    assert "verdict  hangs on the order of CPUs, exit code 1" in said


def test_figures_that_hang_on_leases_are_told(capsys):
    """Planted: with 16 leases everything takes a tenth longer, whatever the slice."""
    assert converge(slowed=lambda one: 1.1 if one.leases == 16 else 1.0) == 1
    said = capsys.readouterr().out
    assert "linux slice=5000 leases=16: runtime, ms +10.0 % beside other leases" in said
    assert "leases=4:" not in said


def test_one_point_alone_is_not_called_converged(capsys):
    assert converge("--vary", "slice=2000", "--vary", "leases=2") == 1
    assert "order    NOT judged: nothing to compare with" in capsys.readouterr().out
