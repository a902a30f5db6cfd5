"""A script makes the rows that its calls say, in order; what is wrong is reported with place, rule and
which value.
"""

from __future__ import annotations

import re

import pytest

from workloads import Region, Script, workload
from workloads import rows as p
from workloads.calls import Calls
from workloads.script import ScriptError

HEAP, FILE, TARGET = (
    Region("heap", 64, writable=True),
    Region("file", 32, file="data", shared=True, executable=True),
    Region("target", 64, writable=True, mapped=False),
)
REGIONS = (HEAP, FILE, TARGET)


def rows_of(*threads, **process):
    """Give the rows of a process of these threads."""
    made = Script("s", regions=REGIONS).process("main", threads, **process).workload()
    return [rows.tolist() for rows in made.processes[0].threads]


def steps(*calls):
    """Make a thread of (name, arguments...)."""

    def thread(t):
        for name, *arguments in calls:
            yield getattr(t, name)(*arguments)

    return thread


def refused(make) -> str:
    with pytest.raises(ScriptError) as reported:
        make()
    assert "\n" not in str(reported.value)
    return str(reported.value)


@pytest.mark.parametrize(
    ("call", "row"),
    [
        (("load", "file", 3, 4, 5), (p.VISIT, p.LOAD, 1, 4, 5, 3)),
        (("store", "heap"), (p.VISIT, p.STORE, 0, 64, 1, 0)),
        (("execute", "file", 30), (p.VISIT, p.IFETCH, 1, 2, 1, 30)),
        (("try_load", "file", 3, 4, 5), (p.TRY, p.LOAD, 1, 4, 5, 3)),
        (("try_store", "file"), (p.TRY, p.STORE, 1, 32, 1, 0)),
        (("try_execute", "heap", 60), (p.TRY, p.IFETCH, 0, 4, 1, 60)),
        (("place", "target"), (p.PLACE, 1, 2, 0, 0, 0)),
        (("place", "target", 2**32 + 7), (p.PLACE, 0, 2, 0, 1, 7)),
        (("mmap", "target"), (p.MMAP, 0, 2, 64, 0, 0)),
        (("populate", "file", 0, 8), (p.POPULATE, 0, 1, 8, 0, 0)),
        (("munmap", "heap", 8, 8), (p.MUNMAP, 0, 0, 8, 0, 8)),
        (("mprotect", "heap", "PROT_READ|PROT_WRITE"), (p.MPROTECT, 3, 0, 64, 0, 0)),
        (("mprotect", "heap", p.PROT_NONE, 1, 1), (p.MPROTECT, 0, 0, 1, 0, 1)),
        (("mremap", "heap", "target", 1, 2), (p.MREMAP, 0, 0, 2, 2, 1)),
        (("madvise", "heap", "MADV_FREE"), (p.MADVISE, 8, 0, 64, 0, 0)),
        (("madvise", "heap", p.MADV_PAGEOUT), (p.MADVISE, 21, 0, 64, 0, 0)),
        (("move_pages", "heap", 1, 2, 3), (p.MOVE_PAGES, 1, 0, 3, 0, 2)),
        (("write", "file"), (p.WRITE, 0, 1, 32, 0, 0)),
        (("fdatasync", "file"), (p.SYNC, 0, 1, 32, 0, 0)),
        (("truncate", "file", 16), (p.TRUNCATE, 0, 1, 16, 0, 16)),
        (("fadvise_dontneed", "file"), (p.FADVISE, 0, 1, 32, 0, 0)),
        (("direct_read", "file", "heap", 4, 8, 16), (p.DIRECT_READ, 0, 1, 8, 16, 4)),
        (("direct_write", "file", "target"), (p.DIRECT_WRITE, 2, 1, 32, 0, 0)),
        (("uprobe_register", "file", 2, 3), (p.UPROBE, 1, 1, 3, 0, 2)),
        (("uprobe_unregister", "file"), (p.UPROBE, 0, 1, 32, 0, 0)),
        (("memory_reclaim", 100), (p.RECLAIM, 0, 0, 100, 0, 0)),
        (("nanosleep", 5), (p.NANOSLEEP, 0, 0, 0, 5, 0)),
        (("post", "go"), (p.POST, 0, 0, 0, 0, 0)),
        (("snapshot", "before"), (p.SNAPSHOT, 0, 0, 0, 0, 0)),
    ],
    ids=lambda value: value[0] if isinstance(value[0], str) else "",
)
def test_each_call_makes_its_row(call, row):
    assert rows_of(steps(call)) == [[row]]


def test_waits_count_on_where_the_thread_has_waited():
    """Without a number a wait takes one post more than the last, asleep or spinning; with one it starts anew
    from there.
    """
    poster = steps(*[("post", "go")] * 5)
    waiter = steps(("wait", "go"), ("spin", "go"), ("wait", "go", 4), ("wait", "go"), ("wait", "end"))
    (_, waits), ends = rows_of(poster, waiter, steps(("post", "end")))[:2], p.NO_REGION
    assert [(op, region, pages) for op, _, region, pages, _, _ in waits] == [
        (p.WAIT_FOR, 0, 1), (p.SPIN, ends, 2), (p.WAIT_FOR, 0, 4), (p.WAIT_FOR, 0, 5), (p.WAIT_FOR, 0, 1),
    ]  # fmt: skip


def test_steps_are_repeated_until_a_flag_is_posted():
    """The row behind them goes back as far as they reach, inner ones included."""

    def reader(t):
        yield t.load("file")
        yield t.until("stop", [t.load("heap"), t.until("told", t.try_load("file")), t.post("round")])
        yield t.until("stop", t.load("heap"))

    rows = rows_of(reader, steps(("post", "told"), ("post", "stop"), ("post", "stop")))[0]
    assert [row[0] for row in rows] == [
        p.VISIT, p.VISIT, p.TRY, p.UNTIL, p.POST, p.UNTIL, p.VISIT, p.UNTIL
    ]  # fmt: skip
    told, stop, again = (row for row in rows if row[0] == p.UNTIL)
    assert (told[4], stop[4], again[4]) == (1, 4, 1)
    assert (stop[3], again[3]) == (1, 2), "as for wait: one post more than the last time"


@pytest.mark.parametrize("parties", [1, 2, 5])
def test_threads_meet_as_often_as_they_like(parties):
    """The k-th meeting is over when all have posted k times: nobody passes early, nobody waits for more."""
    repeats = 4
    made = rows_of(*[steps(*[("meet", "here", parties)] * repeats) for _ in range(parties)])
    for thread in made:
        assert [op for op, *_ in thread] == [p.POST, p.SPIN] * repeats
        assert [pages for op, _, _, pages, _, _ in thread if op == p.SPIN] == [
            k * parties for k in range(1, repeats + 1)
        ]


def test_meetings_and_flags_of_one_name_are_two_things():
    """A post by hand to a flag of that name does not let anybody through."""
    thread = steps(("meet", "here", 2), ("post", "here"))
    assert {page for op, *_, page in rows_of(thread, thread)[0] if op == p.POST} == {0, 1}


@pytest.mark.parametrize(
    ("threads", "message"),
    [
        (
            [1, 1, 1],
            "meeting 'here': 2 threads must come to it, all as often (got process 'main' thread 0 1 times, ",
        ),
        (
            [1],
            "meeting 'here': 2 threads must come to it, all as often (got process 'main' thread 0 1 times)",
        ),
        ([2, 1], "(got process 'main' thread 0 2 times, process 'main' thread 1 1 times)"),
    ],
)
def test_a_meeting_that_somebody_misses_is_refused(threads, message):
    assert message in refused(lambda: rows_of(*[steps(*[("meet", "here", 2)] * times) for times in threads]))


def test_processes_have_the_numbers_in_which_they_were_added():
    """A parent may fork a child that is added only later; each child is its own process."""
    parent = steps(("fork", "second"), ("fork", "first"), ("wait", "gone", 2))
    script = Script("s", regions=REGIONS).process("parent", [parent])
    script.process("other", [steps(("load", "heap"))], cpus=[3])
    script.process("first", [steps(("exit", "gone"))], forked=True).process(
        "second", [steps(("exit", "gone"))], forked=True
    )
    made = script.workload()
    assert [process.name for process in made.processes] == ["parent", "other", "first", "second"]
    assert made.processes[0].threads[0]["page"][:2].tolist() == [3, 2]
    assert [process.forked for process in made.processes] == [False, False, True, True]


def test_a_script_can_be_made_twice():
    """Same workload, same snapshots: nothing is left over from the first time."""
    script = Script("s", regions=REGIONS).process(
        "main", [steps(("snapshot", "a"), ("snapshot", "b")), steps(("snapshot", "c"))]
    )
    one, two = script.workload(), script.workload()
    assert script.snapshots == {"a": 0, "b": 1, "c": 2}
    assert [rows.tolist() for rows in one.processes[0].threads] == [
        rows.tolist() for rows in two.processes[0].threads
    ]
    assert one.exact


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (("load", "stack"), "'region' must be one of heap, file, target (got 'stack')"),
        (
            ("load", "heap", 64),
            "'page' must be a whole number from 0 to 63 in region 'heap' of 64 pages (got 64)",
        ),
        (
            ("load", "heap", -1),
            "'page' must be a whole number from 0 to 63 in region 'heap' of 64 pages (got -1)",
        ),
        (
            ("munmap", "heap", 60, 5),
            "'pages' must be a whole number from 1 to 4 from page 60 of region 'heap' on (got 5)",
        ),
        (
            ("munmap", "heap", 0, 0),
            "'pages' must be a whole number from 1 to 64 from page 0 of region 'heap' on (got 0)",
        ),
        (
            ("munmap", "heap", "0"),
            "'page' must be a whole number from 0 to 63 in region 'heap' of 64 pages (got '0')",
        ),
        (
            ("munmap", "heap", 0, 1.0),
            "'pages' must be a whole number from 1 to 64 from page 0 of region 'heap' on (got 1.0)",
        ),
        (("load", "heap", 0, 1, 0), "'count' must be a whole number from 1 to 4294967295 (got 0)"),
        (
            ("munmap",),
            "munmap(region, page=0, pages=None) (missing 1 required positional argument: 'region')",
        ),
        (
            ("munmap", "heap", 0, 1, 2),
            "'munmap' must be called as munmap(region, page=0, pages=None) (got 4 arguments)",
        ),
        (
            ("mprotect", "heap", "PROT_RW"),
            "'rights' must be one of PROT_NONE, PROT_READ, PROT_WRITE, PROT_EXEC, or several with | (got",
        ),
        (
            ("mprotect", "heap", 8),
            "'rights' must be one of PROT_NONE, PROT_READ, PROT_WRITE, PROT_EXEC, or several with | (got 8)",
        ),
        (
            ("madvise", "heap", "MADV_FREE|MADV_COLD"),
            "'advice' must be one of MADV_DONTNEED, MADV_FREE, MADV_COLD, MADV_PAGEOUT (got",
        ),
        (
            ("madvise", "heap", 3),
            "'advice' must be one of MADV_DONTNEED, MADV_FREE, MADV_COLD, MADV_PAGEOUT (got 3)",
        ),
        (("mremap", "heap", "there"), "'region' must be one of heap, file, target (got 'there')"),
        (("move_pages", "heap", -1), "'node' must be a whole number from 0 to 255 (got -1)"),
        (("place", "heap", 2**40), "'vpn' must be a whole number from 1 to 34359738304 (got 1099511627776)"),
        (("nanosleep", 2**32), "'ns' must be a whole number from 0 to 4294967295 (got 4294967296)"),
        (
            ("fork", "child"),
            "'child' must be a forked process of the script, but there is none (got 'child')",
        ),
        (("fork", "main"), "'child' must be a forked process of the script, but there is none (got 'main')"),
        (("post", 3), "'flag' must be a name of at most 200 characters on one line (got 3)"),
        (("meet", "here", 0), "'parties' must be a whole number from 1 to 4294967295 (got 0)"),
        (("mumap", "heap"), "'call' must be one of load, store, execute, try_load,"),
        (("store", "file"), "VISIT: 'region' of a STORE must be writable (got file)"),
        (("write", "heap"), "WRITE: 'region' of a call on a file must map one (got heap)"),
        (
            ("wait", "never"),
            "WAIT_FOR 'never': 'pages' of a wait must be at most the number of POSTs of its flag (got 1)",
        ),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_a_wrong_step_is_told_with_its_place(call, message):
    """Script, process, thread and step come first; then the rule and the value."""
    reported = refused(lambda: rows_of(steps(("load", "heap")), steps(("load", "heap"), call)))
    assert reported.startswith("script 's': process 'main' thread 1 step 1: ")
    assert message in reported


def test_threads_that_would_wait_for_each_other_are_refused():
    """Each waits for what the other posts afterwards: no schedule ends it."""
    one, two = steps(("wait", "b"), ("post", "a")), steps(("load", "heap"), ("spin", "a"), ("post", "b"))
    reported = refused(lambda: rows_of(one, two))
    assert re.fullmatch(
        r"script 's': process 'main' thread 0 step 0: WAIT_FOR 'b': "
        r"a wait must end, but here 2 threads .*\(got 0\)",
        reported,
    )


def test_a_child_that_nobody_forks_is_refused():
    script = (
        Script("s", regions=REGIONS)
        .process("main", [steps(("load", "heap"))])
        .process("child", [steps()], forked=True)
    )
    assert (
        refused(script.workload)
        == "script 's': process 'child': a forked process must be forked by another one (got no FORK)"
    )


def test_a_child_ends_with_its_exit():
    child = steps(("exit", "gone"), ("load", "heap"))
    script = (
        Script("s", regions=REGIONS)
        .process("main", [steps(("fork", "child"))])
        .process("child", [child], forked=True)
    )
    reported = refused(script.workload)
    assert reported == (
        "script 's': process 'child' thread 0 step 1: VISIT: the last row of a forked process "
        "must be EXIT_MM (got VISIT)"
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"threads": []}, "'threads' must be at least one generator function (got [])"),
        (
            {"threads": [steps()], "regions": [HEAP, HEAP]},
            "'regions' must have a name each (got ['heap', ",
        ),
        (
            {"threads": [steps()], "regions": [Region("r", -1)]},
            "'pages' of region 'r' must be a whole number from 1 to 134217728 (got -1)",
        ),
        ({"threads": [steps()], "regions": ["heap"]}, "'regions' must be regions with a name (got 'heap')"),
        ({"threads": [steps()], "cpus": ["0"]}, "'cpus' must be numbers of CPUs (got ['0'])"),
        ({"threads": [steps()], "name": "main"}, "'name' must be that of one process (got it twice)"),
    ],
)
def test_a_wrong_process_is_refused(wrong, message):
    script = Script("s").process("main", [steps()])
    assert message in refused(lambda: script.process(**{"name": "second", **wrong}))


def test_what_is_yielded_must_come_from_a_call():
    """`yield from t.store(...)`, or a call that was forgotten, is reported; an error of the user's own stays
    what it is.
    """

    def scattered(t):
        yield from t.store("heap")

    def broken(t):
        yield {}["x"]

    assert "thread 0 step 0: a thread must yield what its calls return (got 1)" in refused(
        lambda: rows_of(scattered)
    )
    with pytest.raises(KeyError, match="x"):
        rows_of(broken)


@pytest.mark.parametrize("thread", [lambda t: None, lambda: iter([]), lambda t, more: iter([])])
def test_a_thread_that_is_no_generator_is_refused(thread):
    reported = refused(lambda: rows_of(thread))
    assert reported.startswith(
        "script 's': process 'main' thread 0: 'threads' must be generator functions of one argument (got "
    )


def test_a_thread_may_do_nothing():
    assert rows_of(steps(("load", "heap")), steps()) == [[(p.VISIT, p.LOAD, 0, 64, 1, 0)], []]


def test_every_call_has_a_promise():
    assert all(getattr(Calls, name).__doc__ for name in Calls.names())
    assert len(Calls.names()) == 32


@pytest.mark.parametrize("written", ["script", "function", "made"])
def test_a_python_file_is_a_workload(tmp_path, written):
    """FILE.py:NAME is a Script, a function that returns one, or a Workload; it has its own size."""
    file = tmp_path / "mine.py"
    file.write_text(
        "from workloads import Region, Script\n"
        "def main(t):\n    yield t.store('heap')\n"
        "def function():\n"
        "    return Script('mine', regions=[Region('heap', 8, writable=True)]).process('p', [main])\n"
        "script = function()\nmade = script.workload()\n"
    )
    found = workload(f"{file}:{written}")
    assert (found.name, found.processes[0].threads[0].tolist()) == ("mine", [(p.VISIT, p.STORE, 0, 8, 1, 0)])
    for name, message in (
        ("other", "'other' must be defined there"),
        ("main", "must be a Script, a Workload, or a function"),
    ):
        with pytest.raises(ValueError, match=message):
            workload(f"{file}:{name}")
    with pytest.raises(ValueError, match="'scale' must be 1 for a script"):
        workload(f"{file}:{written}", scale=2)
    with pytest.raises(ValueError, match="'workload file' must exist"):
        workload(f"{file}x.py:{written}")


MISTAKES = {
    "a syntax error": ("x = (\n", ":1: SyntaxError: "),
    "an exception while the file is read": ("x = 1\ny = 1 / 0\n", ":2: ZeroDivisionError: division by zero"),
    "sys.exit": ("import sys\nsys.exit(3)\n", ":2: SystemExit: 3"),
    "an exception in the function": ("def mine():\n    return {}['x']\n", ":2: KeyError: 'x'"),
    "an exception in a generator": (
        "{0}def one(t):\n    yield t.load('heap')\n    1 / 0\n{1}",
        ":5: ZeroDivisionError: division by zero",
    ),
    "a wrong call": (
        "{0}def one(t):\n    yield t.load('heap', 9)\n{1}",
        (
            ":4: script 's': process 'p' thread 0 step 0: 'page' must be a whole number from 0 to 3 "
            "in region 'heap' of 4 pages (got 9)"
        ),
    ),
    "a rule that a row breaks": (
        "{0}def one(t):\n    yield t.store('heap')\n{1}",
        ": script 's': process 'p' thread 0 step 0: VISIT: 'region' of a STORE must be writable (got heap)",
    ),
    "no such name": ("", ": 'mine' must be defined there, but it is not"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_file_is_one_sentence_with_file_and_line(mistake, tmp_path):
    """Whatever goes wrong in a user's file is bad input (ValueError), and is reported with its line where a
    line is to blame.
    """
    code, said = MISTAKES[mistake]
    head, end = (
        "from workloads import Region, Script\n\n",
        "mine = Script('s', regions=[Region('heap', 4)]).process('p', [one])\n",
    )
    file = tmp_path / "mine.py"
    file.write_text(code.replace("{0}", head).replace("{1}", end))
    with pytest.raises(ValueError, match="^" + re.escape(f"{file}{said}")) as reported:
        workload(f"{file}:mine")
    assert "\n" not in str(reported.value)


def test_a_generator_without_end_is_ended(monkeypatch):
    """Its rows would take all memory."""
    monkeypatch.setattr("workloads.script.ROWS_MAX", 2000)

    def forever(t):
        while True:
            yield t.load("heap")

    assert refused(lambda: rows_of(forever)) == (
        "script 's': process 'main' thread 0 step 2000: a script must make at most 2,000 rows in all "
        "(got more)"
    )


def test_a_script_has_no_more_than_a_machine_can_hold():
    """The bounds of workloads are those of the machine's tables."""
    from allocator.mmap import MAX_REGIONS
    from allocator.program import MAX_MARKS

    assert (p.REGIONS_MAX, p.EVALUATIONS_MAX) == (MAX_REGIONS, MAX_MARKS)
