"""Runs with scheduling points: they repeat exactly, a list of what was logged repeats them too, and races are
found whose window lies inside the kernel.
"""

import dataclasses
import re
from pathlib import Path

import pytest

from cpus.atomics import load_acquire
from cpus.locks import spin_lock, spin_unlock
from designs.design import hook, replaced
from designs.linux import PENDING_LARGE, PENDING_MASK, Linux
from designs.state import own_fields
from emulator.experiment import Experiment
from emulator.litmus.run import experiment_of
from emulator.machine import load_machine
from emulator.near_wrap import BEFORE, STAMPS
from emulator.schedule import Schedule, parse_schedule
from emulator.sentences import answer
from emulator.stopped import Livelock
from workloads.litmus.shelf import litmus_test

STRATEGIES = [
    Schedule("walk"),
    Schedule("walk", distance=0),
    Schedule("pct", depth=5, points=50_000),
    Schedule("surw", distance=50, expected=(20_000, 10_000, 10_000, 10_000)),
    Schedule("starve", cpu=1, distance=50),
    Schedule("hooks", distance=5),
    Schedule("places", places=30),
]


def run(design="linux", schedule=None, *, workload="munmap-storm:pages=8", leases=1, cpus=4, **options):
    """One small run; CPUs unmap what others use."""
    machine = load_machine("xeon6430-cxl", scale=4096, cpus=cpus)
    options = {"tokens": 1, "leases": leases, "schedule": schedule} | options
    return Experiment(design, machine, workload, **options).run()


def what_happened(result):
    """Give all that a repeated run must have again."""
    return result.fingerprint, result.switches, result.points, result.cpu_points


@pytest.mark.parametrize("schedule", STRATEGIES, ids=str)
@pytest.mark.parametrize("design", ["linux", "luf"])
def test_a_schedule_repeats_to_the_event(design, schedule):
    """The same seed: the same events, decisions and points. Another one: other decisions. Nobody is blamed
    for what a schedule does.
    """
    first = run(design, schedule)
    assert what_happened(run(design, schedule)) == what_happened(first)
    assert first.switches != run(design, dataclasses.replace(schedule, seed=2)).switches
    assert first.clean
    assert sum(first.cpu_points) == first.points > 10_000
    assert first.schedule["strategy"] == schedule.strategy


@pytest.mark.parametrize("schedule", STRATEGIES, ids=str)
def test_what_was_logged_repeats_the_run(schedule):
    """As a list, and under whatever seed: nothing is drawn then."""
    first = run(schedule=schedule)
    assert first.switches
    assert first.switches_lost == 0
    again = run(schedule=Schedule("listed", switches=first.switches, seed=77))
    assert what_happened(again) == what_happened(first)


def test_a_list_with_less_in_it_is_a_schedule_too():
    """Every second hand-over dropped: another run, which its own log repeats."""
    first = run(schedule=Schedule("walk", distance=100))
    fewer = run(schedule=Schedule("listed", switches=first.switches[::2]))
    assert 0 < len(fewer.switches) <= len(first.switches[::2])
    assert fewer.fingerprint != first.fingerprint
    assert what_happened(run(schedule=Schedule("listed", switches=fewer.switches))) == what_happened(fewer)
    assert run(schedule=Schedule("listed")).switches == []


def test_what_is_recorded_is_the_run_itself():
    """Each point with its CPU and number, and where a CPU handed over by itself: the same run as without."""
    listed = Schedule("listed", switches=run(schedule=Schedule("walk", distance=200)).switches)
    seen = {}

    def look(ram):
        assert ram.run_touched[0] < len(ram.touched)
        seen["touched"] = ram.touched[: int(ram.run_touched[0])].tolist()

    machine = load_machine("xeon6430-cxl", scale=4096, cpus=4)
    how = {"tokens": 1, "leases": 1, "schedule": dataclasses.replace(listed, records=1)}
    recorded = Experiment("linux", machine, "munmap-storm:pages=8", **how).run(observe=look)
    assert what_happened(recorded) == what_happened(run(schedule=listed))
    numbers = [[n for who, n, *_ in seen["touched"] if who == cpu] for cpu in range(4)]
    assert all(mine == sorted(set(mine)) for mine in numbers)
    assert sum(map(len, numbers)) > 0.9 * recorded.points
    decided = {(cpu, n) for cpu, n, _ in recorded.switches}
    assert decided <= {(cpu, n) for cpu, n, *_ in seen["touched"]}


def test_ticks_disturb_short_runs():
    """Drains and idle moments at drawn times; the kernel is none the worse, and the run repeats."""
    plain = Schedule(distance=300, tick_ns=5_000)
    disturbed = dataclasses.replace(plain, disturbs=1)
    first = run("luf", disturbed)
    assert first.clean
    assert what_happened(run("luf", disturbed)) == what_happened(first)
    assert first.vmstat != run("luf", plain).vmstat


POLLED = "changed-while-reclaimed:change=drop,under=move"


@pytest.mark.parametrize("strategy", ["starve:cpu=2,distance=100", "pct:depth=1", "places:places=100"])
def test_who_polls_for_a_flag_lets_its_poster_run(strategy):
    """Readers loop until they are told, and the one who tells them has a low priority, or is starved: they
    are no reason to keep it from running. (They went round until three million points were passed.)
    """
    for seed in range(1, 4):
        schedule = parse_schedule(f"{strategy},seed={seed},points_max=1000000")
        result = experiment_of(litmus_test(POLLED), "linux", schedule=schedule).run()
        assert result.clean
        assert 50_000 < result.points < 700_000


def test_numbers_begin_shortly_before_they_wrap():
    """LUF's stamps pass 16 bits in a run that is far from it alone, and nothing is the worse for it."""
    seen = {}
    test = litmus_test("single-page-batches:long=1")
    for wraps in (0, 1):
        one = experiment_of(test, "luf", schedule=Schedule(wraps=wraps))

        def look(ram, wraps=wraps):
            pending = ram.mm_batched & PENDING_MASK
            seen[wraps] = int(ram.design["ugen"][0]), int(pending.min()), int(pending.max())

        assert one.run(observe=look).clean
    assert 2 + BEFORE < seen[0][0] < STAMPS // 2
    assert STAMPS < seen[1][0] < STAMPS + seen[0][0]
    assert seen[0][1:] < (0, PENDING_LARGE // 2)
    assert seen[1][2] == PENDING_LARGE - BEFORE


def test_the_plain_engine_has_no_points():
    """Nothing of all this is there without a schedule."""
    result = run()
    assert (result.schedule, result.switches, result.points, result.cpu_points) == ({}, [], 0, [])


def test_several_leases_are_held_up_instead():
    """Nobody chooses who runs; every CPU has a countdown of its own, and the run is accounted for."""
    result = run(schedule=Schedule(distance=20), leases=2)
    assert result.clean
    assert result.switches == []


# -- races whose window lies inside the kernel ---------------------------------------------------------------


def _counts(sizes):
    return {"total": (1,), "own": (sizes.nr_cpus,)}


counts_of = own_fields("counting", _counts)


@hook("interrupt")
def count_wrongly(ram, cpu, a, b, c, d):
    counts = counts_of(ram)
    seen = load_acquire(counts.total, 0)
    counts.total[0] = seen + 1  # whoever counted between these two lines is forgotten
    counts.own[cpu] += 1
    return 0


class Counting(Linux):
    """Vanilla Linux that counts interrupts with a load and a store."""

    name = "counting"
    hooks = replaced(Linux.hooks, count_wrongly)

    def fields(self, sizes):
        return _counts(sizes)

    def statistics(self, ram):
        lost = int(ram.design["own"].sum() - ram.design["total"][0])
        return {"findings": [f"{lost} lost"] if lost else []}


def test_points_find_a_race_inside_a_hook():
    """Two lines of one hook: no seed of the controlled mode lets another CPU come between them, but a walk
    does; and what it logged repeats the finding.
    """
    assert all(run(Counting(), seed=seed).clean for seed in range(1, 9))
    found = [result for seed in range(1, 9) if not (result := run(Counting(), Schedule(seed=seed))).clean]
    assert found
    again = run(Counting(), Schedule("listed", switches=found[0].switches))
    assert again.design_findings == found[0].design_findings
    assert again.fingerprint == found[0].fingerprint


def test_decisions_in_hooks_find_it_with_every_seed():
    """A walk of distance 300 finds it with every other one."""
    seeds = range(1, 5)
    assert not any(run(Counting(), Schedule("hooks", distance=3, seed=seed)).clean for seed in seeds)


@hook("shootdown")
def wait_for_nobody(ram, cpu, a, b, c, d):
    counts = counts_of(ram)
    while load_acquire(counts.total, 0) == 0:  # nobody sets it
        counts.own[cpu] += 1
    return 0


class Waiting(Linux):
    """Vanilla Linux that spins for ever before a shootdown."""

    name = "waiting"
    hooks = replaced(Linux.hooks, wait_for_nobody)

    def fields(self, sizes):
        return _counts(sizes)


def test_a_cpu_that_spins_for_ever_is_a_livelock(monkeypatch, capsys):
    """Leases change hands and clocks move; still it is noticed, and told with what repeats it."""
    monkeypatch.setattr("emulator.livelock.POINTS_MAX", 2_000_000)
    with pytest.raises(Livelock, match=r"no thread got on for .* cpu0 ") as stopped:
        run(Waiting(), Schedule(distance=1000))
    assert stopped.value.schedule == Schedule(distance=1000)
    assert stopped.value.scheduled["points"] > 2_000_000
    assert answer(stopped.value) == 1
    told = capsys.readouterr().err.splitlines()
    assert told[-2].startswith("verdict             not clean, exit code 1: waiting by a livelock")
    assert re.fullmatch(
        r"schedule            walk:distance=1000,.*: [\d,]+ scheduling points, [\d,]+ hand-overs; .*",
        told[-1],
    )


# -- the kernel's own rules ----------------------------------------------------------------------------------

RULES = Schedule(distance=20, rules=1)


def careless_fields(sizes):
    return {"a_lock": (1,), "b_lock": (1,), "times": (1,)}


careless_state = own_fields("careless", careless_fields)


@hook("interrupt")
def look_without_the_lock(ram, cpu, a, b, c, d):
    return ram.queue_first[cpu] * 0  # careless


@hook("shootdown")
def take_two_locks(ram, cpu, a, b, c, d):
    state = careless_state(ram)
    if cpu == 0:  # alone, so that nobody is met
        state.times[0] += 1
        if state.times[0] & 1:
            spin_lock(ram, cpu, state.a_lock, 0)
            spin_lock(ram, cpu, ram.queue_lock, 0)
        else:
            spin_lock(ram, cpu, ram.queue_lock, 0)
            spin_lock(ram, cpu, state.a_lock, 0)
        spin_unlock(ram, cpu, state.a_lock, 0)
        spin_unlock(ram, cpu, ram.queue_lock, 0)
    return 0


class Careless(Linux):
    """Vanilla Linux that looks into a run queue without its lock, and takes two locks in either order."""

    name = "careless"
    hooks = replaced(Linux.hooks, look_without_the_lock, take_two_locks)

    def fields(self, sizes):
        return careless_fields(sizes)


def line_of(text):
    """Find the line of this file that ends so."""
    return 1 + next(
        i for i, line in enumerate(Path(__file__).read_text().splitlines()) if line.endswith(text)
    )


def test_rules_that_are_broken_are_found_though_nothing_went_wrong():
    """A field read without the lock that it declares, with its place; two locks of either order. Nothing else
    in the kernel breaks a rule, and without `rules` nobody looks.
    """
    result = run(Careless(), RULES)
    assert not result.violations
    assert not result.unaccounted
    order, field = sorted(result.rule_findings, key=lambda one: one.startswith("queue_first"))
    assert field.startswith("queue_first[")
    assert (
        f"at emulator/test_schedule.py:{line_of('# careless')}, but its rule is Held(lock='queue_lock'"
        in field
    )
    assert re.fullmatch(r"lock order: queue_lock is taken under a word of .* under queue_lock", order)
    assert list(result.blamed_by) == ["the rules of the kernel"]
    assert run(Careless(), dataclasses.replace(RULES, rules=0)).clean


@pytest.mark.parametrize("workload", ["munmap-storm:pages=8", "fork-storm"])
@pytest.mark.parametrize("design", ["linux", "luf"])
def test_the_kernel_keeps_its_rules(design, workload):
    """At each access that is looked at, in the midst of everything."""
    for seed in (1, 2):
        schedule = dataclasses.replace(RULES, seed=seed)
        assert run(design, schedule, workload=workload).rule_findings == []


def test_a_short_list_says_where_each_cpu_was():
    """File and line, and the field that it was about to touch."""
    result = run(schedule=Schedule("walk", distance=3000))
    short = run(schedule=Schedule("listed", switches=result.switches[:40]))
    assert len(short.switch_places) == len(short.switches)
    at_points = [text for text in short.switch_places if "stops at" in text]
    assert at_points
    for text in at_points:
        assert re.match(r"cpu\d stops at (allocator|cpus|designs)/\w+\.py:\d+, before it touches \w+\[", text)


# -- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            {"strategy": "run"},
            r"'schedule' must be one of walk, pct, surw, starve, hooks, places, listed \(got 'run'\)",
        ),
        ({"distance": -1}, r"'schedule.distance' must be a whole number from 0 to 1,000,000,000 \(got -1\)"),
        ({"strategy": "a" * 5000}, r"\(got 'a{70,80} \.\.\.\)$"),
        ({"depth": 6}, r"'schedule.depth' must be a whole number from 1 to 5 \(got 6\)"),
        ({"points": True}, r"'schedule.points' must be a whole number from 1 .* \(got True\)"),
        ({"expected": (1, -1)}, "'schedule.expected' must be whole numbers of at least 0"),
        ({"records": 1}, r"'schedule.records' must be 0 but for a list \(got walk\)"),
        ({"switches": ((1, 2),)}, r"'schedule.switches' must be triples .* \(got \(1, 2\)\)"),
        ({"switches": ((1, -2, 3),)}, r"'schedule.switches' must be triples"),
    ],
)
def test_a_schedule_that_is_none_is_refused(given, sentence):
    """In a sentence with the key, the rule and the value."""
    with pytest.raises(ValueError, match=sentence):
        Schedule(**given)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"schedule": "walk"}, r"'schedule' must be a Schedule \(got 'walk'\)"),
        ({"schedule": Schedule(), "check": "bounds"}, r"'check' must be full or off .* \(got 'bounds'\)"),
        ({"schedule": Schedule(rules=1), "leases": 2}, r"'leases' must be 1 .* checks rules \(got 2\)"),
        ({"schedule": Schedule(points_max=9), "leases": 2}, r"'leases' must be 1 .* has a bound \(got 2\)"),
        ({"schedule": Schedule(cpu=4)}, r"'schedule.cpu' must name CPUs below the machine's 4 \(got 4\)"),
        (
            {"schedule": Schedule("listed", switches=((0, 1, 9),))},
            r"'schedule.switches' must name CPUs below the machine's 4 \(got 9\)",
        ),
    ],
)
def test_an_experiment_that_cannot_have_it_is_refused(given, sentence):
    """Before anything is built."""
    with pytest.raises(ValueError, match=sentence):
        Experiment("linux", load_machine("xeon6430-cxl", scale=4096, cpus=4), "munmap-storm", **given)


def test_the_command_line_writes_a_schedule():
    """As a strategy with parameters; what is printed is what is read."""
    assert parse_schedule("walk") == Schedule()
    assert parse_schedule("pct:depth=2,points=7") == Schedule("pct", depth=2, points=7)
    assert parse_schedule(str(Schedule("starve", cpu=3, seed=9))) == Schedule("starve", cpu=3, seed=9)
    given = Schedule("surw", expected=(900, 0, 20), points_max=5, disturbs=2)
    assert ",expected=900/0/20," in str(given)
    assert parse_schedule(str(given)) == given
    with pytest.raises(ValueError, match=r"'schedule.expected' must be a whole number \(got '9/x'\)"):
        parse_schedule("surw:expected=9/x")
    with pytest.raises(ValueError, match=r"must have parameters of distance, .* \(got 'speed=2'\)"):
        parse_schedule("walk:speed=2")
    with pytest.raises(ValueError, match=r"'schedule.distance' must be a whole number \(got 'far'\)"):
        parse_schedule("walk:distance=far")
    with pytest.raises(ValueError, match=r"'schedule.seed' must be a whole number \(got '1{70,80} \.\.\.\)$"):
        parse_schedule("walk:seed=" + "1" * 5000)
    with pytest.raises(ValueError, match=r"'schedule.seed' must be given once"):
        parse_schedule("walk:seed=1,seed=2")
