"""A campaign's runs are those that it asked for, once, however often it was interrupted."""

import pytest

from emulator.machine import load_machine
from emulator.sweep.child import Answer
from tests.campaigns import carried as there
from tests.campaigns.carried import carried, job
from tests.emulator.fixed import run

SMALL = load_machine("guest-8cpu")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


class Emulation:
    """Stands in for the processes; the first run is lost, the third is interrupted."""

    def __init__(self):
        self.keys = []

    def __call__(self, jobs, take, room):
        for one in jobs:
            self.keys.append(one.key)
            if len(self.keys) == 3:
                raise KeyboardInterrupt
            lost = {"lost": "its process was killed"} if len(self.keys) == 1 else {}
            take(one, Answer(**(lost or {"result": run(seed=one.experiment.seed)})))


def test_each_run_is_made_once_and_one_that_was_lost_again():
    jobs = [job("linux", SMALL, "churn", tokens=1, leases=1, seed=seed) for seed in (1, 2, 3)]
    emulate = Emulation()
    with pytest.raises(KeyboardInterrupt):
        carried("test", jobs, emulate)
    lines = carried("test", jobs, emulate)
    assert [key[-1] for key in emulate.keys] == ["1", "2", "3", "1", "3"]
    assert [lines[one.key].result.seed for one in jobs] == [1, 2, 3]


def test_a_lost_run_is_told_as_one_that_was_stopped():
    (one,) = [job("linux", SMALL, "churn", seed=1)]
    assert carried("test", [one], Emulation())[one.key].stopped == "its process was killed"


def test_other_sources_begin_anew(monkeypatch):
    (one,) = [job("linux", SMALL, "churn", seed=1)]
    emulate = Emulation()
    emulate.keys = ["", "", ""]
    carried("test", [one], emulate)
    carried("test", [one], emulate)
    assert len(emulate.keys) == 4
    monkeypatch.setattr(there, "facts", lambda: {"luf": "another"})
    carried("test", [one], emulate)
    assert len(emulate.keys) == 5


def test_a_key_says_all_that_differs():
    changed = load_machine("guest-8cpu", cpus=4, overrides={"costs.ipi_latency": 900})
    jobs = [
        job("linux", SMALL, "churn", seed=1),
        job("luf", SMALL, "churn", seed=1),
        job("linux", changed, "churn", seed=1),
        job("linux", load_machine("guest-8cpu", cpus=4), "churn", seed=1),
        job("linux", SMALL, "tiny8", seed=1),
        job("linux", SMALL, "churn", seed=1, tokens=3),
    ]
    assert len({one.key for one in jobs}) == len(jobs)
