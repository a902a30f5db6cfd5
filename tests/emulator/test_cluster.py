"""A sweep on a Dask cluster of separate worker processes: each run once, whatever dies, as on this host."""

from __future__ import annotations

import builtins
import os
import pickle
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from distributed import LocalCluster

from emulator.cli import main
from emulator.cli_arguments import parser
from emulator.experiment import StatisticsError
from emulator.judge.bad_access import BadAccess
from emulator.machine import load_machine
from emulator.sweep import cluster as there
from emulator.sweep.child import answer_of
from emulator.sweep.journal import SCHEMA, Head, Journal
from emulator.sweep.plan import Job, SweepError, plan_of
from emulator.sweep.points import Ended, points_of
from emulator.sweep.scheduler import TRIES, Room, run_here
from emulator.sweep.table import write_tables
from emulator.sweep.worker import on_worker
from tests.emulator.fixed import run
from tests.support.short_runs import ShortRun, began

ROOT = Path(__file__).parents[2]
ANY = Room(0, 0, 0)
ABOUT = pytest.approx(0.6, abs=0.3)
SMALL = load_machine("guest-8cpu")
DESIGN = '''
from designs.linux import Linux


class Mine(Linux):
    """Vanilla, under another name."""

    name = "mine"
'''


@pytest.fixture(scope="module")
def cluster():
    """Two workers with a lease each, in processes of their own, which are begun anew when they die."""
    made = LocalCluster(
        n_workers=2,
        threads_per_worker=2,
        processes=True,
        dashboard_address="127.0.0.1:0",
        resources={"leases": 1, "GiB": 64},
        env={"PYTHONPATH": str(ROOT)},
    )
    yield made
    with suppress(TimeoutError):  # a worker has 5 s to leave, on however busy a host, and is then killed
        made.close()


@pytest.fixture
def address(cluster, monkeypatch):
    """Of a scheduler that may be slow: it shares a process with the tests, and a host with others."""
    monkeypatch.setattr(there, "CONNECT_S", 60)
    return cluster.scheduler_address


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


def short(folder, design, seed, does=""):
    run = ShortRun(design, SMALL, seed, folder, does)
    return Job(f"design={design} seed={seed}", {"design": design}, run)


def ended_by(run_all, jobs, folder, then=lambda taken: None):
    """Run all; gives the tables that come of it. `then` is called after each, with the keys so far."""
    taken, found = [], {}

    def take(one, answer):
        taken.append(one.key)
        found[one.key] = answer
        then(taken)

    run_all(jobs, take)
    assert sorted(taken) == sorted(one.key for one in jobs)
    folder.mkdir()
    ended = [Ended(one.point, found[one.key].result) for one in jobs]
    write_tables(points_of(ended), ended, folder)
    return [(folder / name).read_bytes() for name in ("points.csv", "runs.csv")]


def test_a_killed_workers_run_is_begun_again_and_counted_once(address, folder):
    """Six runs; when five have been taken, the worker that holds the sixth is killed: its process ends with
    it, the run is made elsewhere, and the tables are those of this host.
    """
    jobs = [
        short(folder, design, seed, "held" if (design, seed) == ("luf", 2) else "")
        for design in ("linux", "luf", "latr")
        for seed in (1, 2)
    ]
    five = threading.Event()

    def kill():
        with open(folder / "pipe") as pipe:
            worker = int(pipe.readline())
            five.wait()
            (folder / "go").touch()
            os.kill(worker, signal.SIGKILL)
            rest.append(pipe.read())  # ends when nobody has it open any more

    rest = []
    killer = threading.Thread(target=kill)
    killer.start()
    on_cluster = ended_by(
        lambda jobs, take: there.run_on(address, jobs, take, ANY),
        jobs,
        folder / "a",
        lambda taken: len(taken) == 5 and five.set(),
    )
    killer.join()
    assert rest == [""]
    times = began(folder)
    assert times.pop("luf 2") == 2
    assert set(times.values()) == {1}
    assert len(times) == 5
    assert on_cluster == ended_by(
        lambda jobs, take: run_here(jobs, take, Room(2, 1 << 40, 2), _in_this_process), jobs, folder / "b"
    )


def _in_this_process(sent):
    return msgspec.json.encode(answer_of(pickle.loads(sent).run))


def test_whatever_ends_the_command_ends_its_runs(address, folder):
    """Ctrl-C when one run has ended, while another one is held; and the next sweep finds free workers."""
    jobs = [short(folder, "luf", 1, "held"), short(folder, "luf", 2), short(folder, "luf", 3, "held")]
    gone = threading.Thread(target=lambda: (folder / "pipe").read_text())
    gone.start()

    def interrupt(one, answer):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        there.run_on(address, jobs, interrupt, Room(0, 0, 2))
    gone.join()
    assert began(folder).keys() == {"luf 1", "luf 2"}
    taken = []
    again = [short(folder, "linux", 1), short(folder, "linux", 2)]
    there.run_on(address, again, lambda one, answer: taken.append(one.key), ANY)
    assert len(taken) == 2


def test_a_run_that_nobody_waits_for_is_ended(address, folder):
    """Its task was cancelled, as it is when the command's host has gone; workers are told nothing else."""
    with there._client(address) as client, there._runs_on(client) as sweep:
        sent = pickle.dumps(short(folder, "luf", 1, "held").experiment)
        future = client.submit(on_worker, sweep, there.facts(), sent, pure=False)
        with open(folder / "pipe") as pipe:
            assert pipe.readline()
            future.cancel()
            assert pipe.read() == ""


def test_only_what_was_lost_is_tried_again(address, folder):
    """A process that dies each time, a violation, a deadlock, a refusal."""
    jobs = [short(folder, does, 1, does) for does in ("dies", "dirty", "stuck", "refused")]
    answers = {}
    there.run_on(address, jobs, lambda one, answer: answers.update({one.experiment.does: answer}), ANY)
    assert began(folder) == {"dies 1": TRIES, "dirty 1": 1, "stuck 1": 1, "refused 1": 1}
    assert "SIGKILL" in answers["dies"].lost
    assert answers["dirty"].result.violations
    assert answers["stuck"].by_design
    assert answers["refused"].refused == "no room"


@pytest.mark.parametrize("name", ["luf", "Python"])
def test_another_version_on_a_worker_is_refused(address, folder, monkeypatch, name):
    """What the worker has is said, and nothing runs."""
    own = there.facts()
    monkeypatch.setattr(there, "facts", lambda: own | {name: "0"})
    answers = []
    there.run_on(address, [short(folder, "luf", 1)], lambda one, answer: answers.append(answer), ANY)
    assert f"the same {name} as the command, 0 (got {own[name]})" in answers[0].refused
    assert not (folder / "began").exists()


def test_ones_own_files_go_along_and_do_the_same_there(cluster, address, folder, capfd):
    """The workers have another folder. By the command; and as experiments that are submitted by those who
    write their own, when the files are gone.
    """
    (folder / "mine.py").write_text(DESIGN)
    (folder / "script.toml").write_text((ROOT / "examples" / "written.toml").read_text())
    (folder / "small.toml").write_text((ROOT / "emulator/machines/guest-8cpu.toml").read_text())
    words = ["sweep", "--machine", "small.toml", "--workload", "script.toml", "--leases", "1", "--vary",
             "design=linux,mine.py:Mine"]  # fmt: skip
    plan = plan_of(parser().parse_args(words))
    assert main([*words, "--dask", address]) == 0
    assert "the cluster's dashboard is http://127.0.0.1:" in capfd.readouterr().err
    for file in ("mine.py", "script.toml", "small.toml"):
        (folder / file).unlink()
    here = [one.experiment.run() for one in plan.jobs]
    with cluster.get_client() as client:
        futures = [client.submit(one.experiment.run, pure=False) for one in plan.jobs]
        submitted = client.gather(futures)
    with Journal(folder / "sweep", Head(SCHEMA, plan.identity)) as journal:
        swept = [journal.done[one.key].result for one in plan.jobs]
    for results in (swept, submitted):
        assert [(one.design, one.fingerprint) for one in results] == [
            (one.design, one.fingerprint) for one in here
        ]


@pytest.mark.parametrize(
    "error", [BadAccess("page 7 of nobody", 1, 2, 3, 4), StatisticsError("no figures", run())]
)
def test_errors_arrive_as_they_were(error):
    """An exception that cannot be unpickled would be told as another one."""
    error.design = "mine"
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


@pytest.mark.parametrize(
    ("leases", "workers", "needs"),
    [
        (2, [{}], {}),
        (2, [{"leases": 4}], {"leases": 2}),
        (8, [{"leases": 2}, {"leases": 4}], {"leases": 4}),
        (0, [{"leases": 2}, {"leases": 4}], {"leases": 4}),
        (2, [{"GPU": 1}], {}),
        (0, [{"leases": 8, "GiB": 0.1}, {"leases": 2, "GiB": 64}], {"leases": 2, "GiB": ABOUT}),
        (2, [{"leases": 4}, {"leases": 4, "GiB": 64}], {"leases": 2, "GiB": ABOUT}),
        (2, [{"leases": 4}, {"GiB": 64}], None),
        (2, [{"GiB": 0.1}], None),
    ],
)  # fmt: skip
def test_runs_ask_for_what_workers_announce(leases, workers, needs):
    one = ShortRun("luf", SMALL, 1, Path(), leases=leases)
    if needs is None:
        with pytest.raises(SweepError, match=r"a worker must announce .*GiB, and for guest-8cpu 0.* GiB"):
            there.needed(one, [there.Worker(4, one) for one in workers])
    else:
        assert there.needed(one, [there.Worker(4, one) for one in workers]) == needs


def test_the_cluster_has_places_by_threads_and_by_what_is_announced():
    one, two = there.Worker(2, {}), there.Worker(8, {"leases": 8, "GiB": 2.5})
    assert there.places({}, [one, two]) == 10
    assert there.places({"leases": 2}, [one, two]) == 4
    assert there.places({"leases": 2, "GiB": 1.0}, [one, two]) == 2


@pytest.mark.parametrize("address", ["127.0.0.1:1", "", "tcp://", "bogus://x:1", "x:y"])
def test_an_address_that_nobody_answers_is_one_sentence(address, folder, monkeypatch, capfd):
    monkeypatch.setattr(there, "CONNECT_S", 0.05)
    assert main(["sweep", "--machine", "guest-8cpu", "--dask", address]) == 2
    error = capfd.readouterr().err
    assert "'--dask' must be the address of a Dask scheduler that answers" in error
    assert error.count("\n") == 1


def test_without_distributed_it_is_one_sentence(folder, monkeypatch, capsys):
    """Told before there is a folder."""
    monkeypatch.delitem(sys.modules, "emulator.sweep.cluster")
    own = builtins.__import__

    def without(name, *others):
        if name.split(".")[0] == "distributed":
            raise ImportError("No module named 'distributed'")
        return own(name, *others)

    monkeypatch.setattr(builtins, "__import__", without)
    assert main(["sweep", "--machine", "guest-8cpu", "--dask", "127.0.0.1:1"]) == 2
    error = capsys.readouterr().err
    assert "pip install 'luf-emulator[dask]'" in error
    assert error.count("\n") == 1
    assert not Path("sweep").exists()
