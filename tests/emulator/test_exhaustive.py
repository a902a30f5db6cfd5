"""All schedules of a small test with at most so many preemptions: counted by hand for two threads; a race
that needs two preemptions is found with two and not with one.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from emulator.cli import main
from emulator.litmus.exhaustive import Exhausted, Ran
from emulator.litmus.search import Explored, Search
from emulator.litmus.touched import NOWHERE, advances, choices, order_of, passed, possible, touched
from emulator.litmus.verdict import VOID, Verdict
from emulator.verdict import BAD_INPUT, CLEAN, DIRTY

READ, WRITE = 0, 1
X, Y, MINE = 0x100, 0x200, 0x300


def played(programs, prefix):
    """Run threads, a CPU each, whose accesses are (operation, word): usual turns, the lowest CPU first, but
    for these preemptions. Gives the record, what each access saw, and whether all of them could be made.
    """
    at, noted, record, seen, words = [0] * len(programs), [0] * len(programs), [], [], {}
    cpu, made, preempted = 0, 0, {(stops, number): runs for stops, number, runs in prefix}
    while left := [c for c in range(len(programs)) if at[c] < len(programs[c])]:
        if cpu not in left:  # it has ended: who comes first goes on
            record.append([cpu, at[cpu] + 1, NOWHERE, left[0], sum(1 << c for c in left[1:])])
            cpu = other if (other := preempted.get((cpu, at[cpu] + 1))) in left[1:] else left[0]
            made += cpu != left[0]
        number, (operation, word) = at[cpu] + 1, programs[cpu][at[cpu]]
        if noted[cpu] < number:
            noted[cpu] = number
            record.append([cpu, number, word, operation, sum(1 << c for c in left if c != cpu)])
            if preempted.get((cpu, number), cpu) in set(left) - {cpu}:
                cpu = preempted[cpu, number]
                made += 1
                continue
        seen.append((cpu, number, words.get(word)))
        if operation == WRITE:
            words[word] = (cpu, number)
        at[cpu] += 1
    return np.array(record, np.int64).reshape(-1, 5), seen, made == len(prefix)


def last_of(record, prefix):
    """Find the row of the last preemption."""
    return max(
        (i for i, row in enumerate(record.tolist()) if prefix and tuple(row[:2]) == prefix[-1][:2]),
        default=-1,
    )


def searched(programs, preemptions, on_the_way=lambda seen: None):
    search = Search(preemptions)
    while (todo := search.next()) is not None:
        record, seen, taken = played(programs, todo.prefix)
        on_the_way(seen)
        after = last_of(record, todo.prefix)
        mine = touched(record)
        places = np.union1d(todo.places, mine.shared)
        search.tell(
            Explored(
                todo.prefix, order_of(record), mine, choices(record, after, places),
                advances(record, todo.prefix), passed(record, after), places, possible(record, after),
                taken=taken, again=todo.again,
            )
        )  # fmt: skip
    assert search.over
    return search


BOTH = [(WRITE, X), (WRITE, Y)]


@pytest.mark.parametrize(
    ("programs", "schedules", "orders"),
    [
        # usually the first thread runs first; stopped before its only access, it runs second. To stop the
        # second one in turn leads to where the first run began
        ([[(WRITE, X)], [(WRITE, X)]], [1, 1, 0], 2),
        # who is first at X, who is first at Y: four orders. The first thread is stopped before either access,
        # and then the second one before its access to Y, where the first is yet to come
        ([BOTH, BOTH], [1, 2, 2], 4),
        # nobody writes: nothing to decide
        ([[(READ, X)], [(READ, X)]], [1, 0, 0], 1),
        # words of its own change nothing: stopped before X, or behind it, wherever that is
        ([[(WRITE, MINE), (WRITE, X), (WRITE, MINE)], [(READ, X)]], [1, 2, 0], 2),
        ([[(WRITE, MINE)] * 9, [(READ, X)]], [1, 0, 0], 1),
    ],
)
def test_schedules_of_two_threads_are_those_that_one_counts_by_hand(programs, schedules, orders):
    search = searched(programs, 2)
    assert search.runs == schedules
    assert len(search.orders) == orders
    assert search.known == schedules


# between its two reads of X the first thread must be stopped, and the second one between its two writes
READS_TWICE, SETS_AND_CLEARS = [(READ, X), (READ, X)], [(WRITE, X), (WRITE, X)]


@pytest.mark.parametrize(("preemptions", "is_found"), [(0, False), (1, False), (2, True), (3, True)])
def test_a_race_that_needs_two_preemptions_is_found_with_two(preemptions, is_found):
    """Nothing before, and something in the midst."""
    found = []

    def look(seen):
        reads = [value for cpu, _, value in seen if cpu == 0]
        found.append(reads == [None, (1, 1)])

    searched([READS_TWICE, SETS_AND_CLEARS], preemptions, look)
    assert any(found) == is_found


def test_every_order_that_there_is_is_found():
    """Of all interleavings of three threads, tried one by one, whatever each access sees: with as many
    preemptions as there are accesses the search sees the same, in fewer runs.
    """
    programs = [[(WRITE, X), (READ, Y)], [(WRITE, Y), (WRITE, MINE), (READ, X)], [(WRITE, X)]]
    whole = {
        tuple(sorted(played_in(programs, order))) for order in set(itertools.permutations([0, 0, 1, 1, 1, 2]))
    }
    seen = set()
    search = searched(programs, 6, lambda one: seen.add(tuple(sorted(map(str, one)))))
    assert seen == whole
    assert len(search.orders) == len(whole)


def drawn(random):
    """Draw two or three threads of one to three accesses."""
    words = [[X, Y, MINE + 8 * cpu] for cpu in range(random.integers(2, 4))]
    return [
        [(int(random.integers(2)), int(random.choice(mine))) for _ in range(random.integers(1, 4))]
        for mine in words
    ]


def shown_by_all_lists(programs, preemptions):
    """Give what every list of so many preemptions shows, and how many lists there are."""
    todo, shown, lists = [()], set(), 0
    while todo:
        prefix = todo.pop()
        record, seen, _ = played(programs, prefix)
        shown.add(tuple(sorted(map(str, seen))))
        lists += 1
        if len(prefix) < preemptions:
            rows = record[last_of(record, prefix) + 1 :].tolist()
            todo += [(*prefix, (cpu, number, c)) for cpu, number, _, _, others in rows
                     for c in range(3) if others >> c & 1]  # fmt: skip
    return shown, lists


@pytest.mark.parametrize("preemptions", [1, 2, 3])
def test_what_is_left_out_would_have_shown_nothing_else(preemptions):
    """Of threads that are drawn: with so many preemptions all lists together show what the search's do."""
    random, lists, runs = np.random.default_rng(5), 0, 0
    for _ in range(12):
        programs, seen = drawn(random), []
        runs += sum(searched(programs, preemptions, seen.append).runs)
        shown, more = shown_by_all_lists(programs, preemptions)
        assert {tuple(sorted(map(str, one))) for one in seen} == shown
        lists += more
    assert runs < lists * 0.75


def played_in(programs, order):
    """Run one access after the other, in this order of CPUs."""
    at, words, seen = [0] * len(programs), {}, []
    for cpu in order:
        operation, word = programs[cpu][at[cpu]]
        at[cpu] += 1
        seen.append(str((cpu, at[cpu], words.get(word))))
        if operation == WRITE:
            words[word] = (cpu, at[cpu])
    return seen


# -- the command ---------------------------------------------------------------------------------------------

COUNTING = f"{Path(__file__).parent / 'replays' / 'counting.py'}:Counting"
INTERRUPTED = """\
machine: cpus = 3
region:  m 1 writable

p @0        | p @1        | p @last
store m     | load m      | load m
meet there  | meet there  | meet there
munmap m    |             |
"""


def test_the_command_finds_a_race_with_as_few_preemptions_as_it_needs(tmp_path, capsys):
    """A count by load and store loses one if another CPU counts in between: not while CPUs go on until they
    wait. What is printed says so, and the replay file repeats it.
    """
    test = tmp_path / "interrupted.litmus"
    test.write_text(INTERRUPTED)
    command = ["litmus", str(test), "--designs", COUNTING, "--exhaustive", "--out", str(tmp_path)]
    assert main([*command, "--preemptions", "0"]) == CLEAN
    assert (
        "all schedules with at most 0 preemptions were run, 1: nothing forbidden" in capsys.readouterr().out
    )
    assert main([*command, "--preemptions", "1"]) == DIRTY
    assert "counting  FORBIDDEN with 1 preemption, in schedule " in capsys.readouterr().out
    (case,) = tmp_path.glob("*-litmus/interrupted-counting.toml")
    assert main(["replay", str(case)]) == DIRTY
    assert "as stored, to the event" in capsys.readouterr().out


def test_what_was_too_long_is_not_called_all():
    """Nothing is known of what lies behind the only schedule."""
    found = Exhausted("long", "luf", Search(1))
    assert found.search.next() is not None
    found.add(Ran(Explored((), ends=True), Verdict(VOID, "cut short"), end=1, cut_short=True))
    assert found.search.next() is None
    assert found.search.over
    assert not found.is_whole
    assert found.is_void
    assert found.line().startswith("1 schedules were run in 0 s, 1 of at least 1 with 0 preemptions: nothing")
    assert "1 were too long to go on from; 1 void (cut short)" in found.line()


def test_a_schedule_beside_all_schedules_is_refused(capsys):
    assert main(["litmus", "munmap", "--exhaustive", "--schedule", "walk"]) == BAD_INPUT
    assert "'--schedule' must not be given with --exhaustive" in capsys.readouterr().err
