"""The format of litmus tests: a file becomes a workload and a machine; a mistake is one sentence with file,
line, rule and value.
"""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path

import pytest

from inputs.text import is_odd
from workloads import rows as p
from workloads import workload
from workloads.litmus.condition import Condition, conditions
from workloads.litmus.expression import number
from workloads.litmus.family import family_of
from workloads.litmus.laid_out import text_of
from workloads.litmus.sheet import LitmusError, lines_of, read_sheet
from workloads.litmus.shelf import litmus_test, litmus_tests, shipped

TEXT = """
# a comment
about:    what it is
          
covers:   munmap, I5
needs:    pgfault > 0, luf.flushes = 3
machine:  cpus = 3, memory = 600 + 512, tlb.pcid = false, sysctl.swappiness = 10
region:   m 16 writable
region:   f 8 file=data offset=4 shared order=2
region:   own 4 writable of=q

p @0                | p @last           | q @1           # threads
store m 3 4         | load f            | store own
meet a; meet b      | meet a            | meet b
repeat 3            | until over        | try_load m 2*8-1
  munmap m n 1      |   load m 0 1      |
  repeat 2 k        |   until told      |
    mmap m n+k-k 1  |     try_store f   |
    post told       |   end             |
  end               | end               |
end                 |                   |
mprotect m PROT_READ|PROT_WRITE page=4 pages=2 | |
post over           |                   |
"""  # noqa: W293


def made(text=TEXT):
    return next(family_of("my.litmus", "my", text).members())


def refused(text) -> str:
    with pytest.raises(LitmusError) as error:
        list(family_of("my.litmus", "my", text).members())
    assert "\n" not in str(error.value)
    assert not is_odd(str(error.value))
    return str(error.value)


def test_columns_are_threads_of_processes():
    """Their calls are rows as a script's would be; loops are unrolled or wait for their flag."""
    test = made(TEXT.replace("          \n", ""))
    one, two = test.workload.processes
    assert (one.name, one.cpus, [region.name for region in one.regions]) == ("p", (0, 2), ["m", "f"])
    assert (two.name, two.cpus, [region.name for region in two.regions]) == ("q", (1,), ["m", "f", "own"])
    assert one.regions[1] == p.Region("f", 8, file="data", file_offset=4, shared=True, folio_order=2)
    calls = [(p.ROW_KINDS[op].name, page, pages) for op, _, _, pages, _, page in one.threads[0].tolist()]
    assert [call for call in calls if call[0] in ("MUNMAP", "MMAP", "MPROTECT")] == [
        ("MUNMAP", 0, 1), ("MMAP", 0, 1), ("MMAP", 0, 1), ("MUNMAP", 1, 1), ("MMAP", 1, 1), ("MMAP", 1, 1),
        ("MUNMAP", 2, 1), ("MMAP", 2, 1), ("MMAP", 2, 1), ("MPROTECT", 4, 2),
    ]  # fmt: skip
    ops = [p.ROW_KINDS[op].name for op in one.threads[1]["op"].tolist()]
    assert ops == ["VISIT", "POST", "SPIN", "VISIT", "TRY", "UNTIL", "UNTIL"]
    assert one.threads[1]["count"].tolist()[-2:] == [1, 3]
    assert two.threads[0].tolist()[-1] == (p.TRY, p.LOAD, 0, 1, 1, 15)


def test_a_meeting_is_for_all_columns_that_name_it():
    spins = {
        (process.name, thread): [row["pages"] for row in rows if row["op"] == p.SPIN]
        for process in made(TEXT.replace("          \n", "")).workload.processes
        for thread, rows in enumerate(process.threads)
    }
    assert spins == {("p", 0): [2, 2], ("p", 1): [2], ("q", 0): [2]}


def test_heads_say_what_it_is_for_and_where_it_runs():
    test = made(TEXT.replace("          \n", ""))
    assert (test.name, test.about, test.covers) == ("my", "what it is", ("munmap", "I5"))
    assert test.needs == (Condition("pgfault", ">", 0), Condition("luf.flushes", "=", 3))
    assert test.machine == {
        "cpus": 3,
        "memory": [600, 512],
        "sockets": False,
        "overrides": {"tlb.pcid": False, "sysctl.swappiness": 10},
    }


def test_each_combination_of_parameters_is_a_test():
    """Numbers and text; a parameter of one value has no part in the name, until it is given another."""
    text = (
        "with: pages = 1, 16\nwith: change = again: munmap m; mmap m, mprotect m PROT_READ\nwith: times = 2\n"
        "region: m {pages} writable\np @0\nrepeat {times}; {change}; end"
    )
    family = family_of("my.litmus", "my", text)
    names = [test.name for test in family.members()]
    assert names == [
        "my:pages=1,change=again", "my:pages=1,change=mprotect-m-PROT_READ",
        "my:pages=16,change=again", "my:pages=16,change=mprotect-m-PROT_READ",
    ]  # fmt: skip
    other = family.member({"pages": "7", "change": "mprotect-m-PROT_READ", "times": "3"})
    assert other.name == "my:pages=7,change=mprotect-m-PROT_READ,times=3"
    rows = other.workload.processes[0].threads[0].tolist()
    assert rows == [(p.MPROTECT, p.PROT_READ, 0, 7, 0, 0)] * 3
    with pytest.raises(LitmusError, match="a parameter must be one of pages, change, times"):
        family.member({"page": "7"})
    for odd in ("7\x1b[2J", "7#", "7\n8"):
        with pytest.raises(LitmusError, match="'pages' must be one line without control characters"):
            family.member({"pages": odd})


def test_all_tests_of_a_family_together_have_a_bound(monkeypatch):
    """A file of a few lines would keep the host busy for hours otherwise: with calls, with loops in which
    none is made, with text that each test has.
    """
    monkeypatch.setattr("workloads.litmus.family.MADE_MAX", 14)
    for call in ("load m 0 1", "repeat 0; load m; end"):
        text = f"with: a = 4, 5, 6\nregion: m 4\np @0\nrepeat {{a}}; {call}; end\nload m"
        family = family_of("my.litmus", "my", text)
        assert family.member({}).workload.stored_rows() <= 5
        rule = "my.litmus: calls of all its tests, with all repetitions, must be at most 14 .got more."
        with pytest.raises(LitmusError, match=rule):
            list(family.members())
    long = f"with: a = {', '.join(map(str, range(1000)))}\nabout: {'x' * 9000}\nregion: m 4\np @0"
    with pytest.raises(LitmusError, match="at most 8,388,608 characters, counted for each of its 1,000"):
        family_of("my.litmus", "my", long)


def test_a_test_of_heads_alone_is_laid_out():
    """As many lines as a file may have, of which no call has one."""
    text = "about: it\n" * 399 + "p @0"
    assert text_of(read_sheet("my", lines_of("my", text))).count("about:") == 399


HEAD = "region: m 4 writable\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("about: x", "my.litmus: columns of calls must follow the heads (got none)"),
        ("abuot: x\np @0\nload m", "my.litmus:1: a head must be one of about, covers,"),
        (HEAD + "load m", "my.litmus:2: columns must be named first, by process and CPU"),
        (HEAD + "p @0\nlaod m", "my.litmus:3: process 'p' thread 0: 'call' must be one of load"),
        (HEAD + "p @0\nload m\nload m 2 5",
         "my.litmus:4: process 'p' thread 0: 'pages' must be a whole number from 1 to 2 from page 2 of"),
        (HEAD + "p @0\nrepeat 2\nload m\n load m n*4 1\nend",
         "my.litmus:5: process 'p' thread 0: 'page' must be a whole number from 0 to 3 in region 'm'"),
        (HEAD + "p @0\nload m | load m", "my.litmus:3: a line must have at most 1 columns (got 2)"),
        (HEAD + "p @0\nrepeat 2\nload m", "my.litmus:3: a loop must be closed by `end` in its column"),
        (HEAD + "p @0\nload m; end", "my.litmus:3: `end` must end a loop of its column (got 'end')"),
        (HEAD + "p @0\nrepeat x; load m; end", "my.litmus:3: `repeat` must be followed by a number of times"),
        (HEAD + "p @0\nrepeat 2; end", "my.litmus:3: a loop must have a call (got 'repeat 2')"),
        (HEAD + "p @0\nuntil; load m; end", "my.litmus:3: `until` must be followed by a flag"),
        (HEAD + "p @0\nwait a", "my.litmus:3: process 'p' thread 0: WAIT_FOR 'a': 'pages' of a wait must"),
        (HEAD + "p @0 | p @1\nload m | repeat 2; meet a; end\nmeet a|",
         "my.litmus: script 'my': meeting 'a': 2 threads must come to it, all as often"),
        (HEAD + "p @0 | p @any\nload m", "my.litmus: process 'p': columns must all have a CPU, or all"),
        ("region: m\np @0", "my.litmus:1: 'region' must be a name, pages, and what it is"),
        ("region: m 4 writeable\np @0", "my.litmus:1: a region must be writable, shared, executable,"),
        ("region: m 4 of=q\np @0", "my.litmus:1: a region must be writable, shared"),
        ("machine: cpus\np @0", "my.litmus:1: 'machine' must be KEY = VALUE, with commas between"),
        ("machine: memory = a\np @0", "my.litmus:1: 'memory' must be a whole number of at least 1 (got 'a')"),
        ("needs: pgfault\np @0", "my.litmus:1: it must be a figure compared with a number"),
        ("forbidden: a > 1, b > 2\np @0", "my.litmus:1: 'forbidden' must be violation, or one comp"),
        ("with: pages\np @0", "my.litmus:1: 'with' must be a parameter and its values"),
        ("with: a = 1\nregion: m {b}\np @0", "my.litmus:2: what stands in braces must be a parameter, one"),
        ("about: \x1b[31m\np @0", "my.litmus:1: a line must be text without control characters"),
        ("with: a = " + "1," * 1001 + "1\np @0", "my.litmus: its parameters must make at most 1000 tests"),
        (HEAD + "p @0\n" + "repeat 2\n" * 9 + "load m\n" + "end\n" * 9, "loops must be at most 8 deep"),
        (HEAD + "p @0\nrepeat 1000000; repeat 1000000; load m; end; end",
         "my.litmus:3: calls, with all repetitions, must be at most 100,000"),
        (HEAD + "p @0\nrepeat 1000000; repeat 1000000; repeat 0; load m; end; end; end",
         "my.litmus:3: calls, with all repetitions, must be at most 100,000"),
        (HEAD + "p @0\nload m page=1 page=2", "'page' must be given once (got 'm page=1 page=2')"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_with_its_line(text, message):
    assert message in refused(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("7", 7), ("2*n+1", 7), ("-(n-1)//2", -1), ("n%2", 1), ("m", None), ("n**2", None), ("f(3)", None),
     ("1/0", None), ("1//0", None), ("1" * 81, None), ("9**9", None), ("", None), ("PROT_READ", None)],
)  # fmt: skip
def test_numbers_are_sums_and_products(text, value):
    """And nothing else that Python can."""
    assert number(text, {"n": 3}) == value


def test_python_has_no_say_in_what_is_no_number():
    """It warns of some text; nobody reads that."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert number("0or", {}) is None
        assert number("1is(2)", {}) is None


def test_a_condition_says_nothing_of_figures_that_are_not_there():
    """So one on a figure of LUF's holds for a run of Linux."""
    one, other = conditions("luf.flushes > 2, pgfault <= 4")
    assert one.holds({"pgfault": 3})
    assert not one.holds({"luf.flushes": 2})
    assert not other.holds({"pgfault": 5})


def test_every_test_that_ships_can_be_made():
    """And says what it is about and for, and has a name of its own."""
    tests = [test for name in shipped() for test in litmus_tests(name)]
    assert len({test.name for test in tests}) == len(tests) > 20
    for test in tests:
        assert test.about.endswith("."), test.name
        assert test.covers, test.name
        assert litmus_test(test.name).workload.name == test.name


def test_a_litmus_test_is_a_workload(tmp_path):
    """By its file, or by the name of one that ships with the suffix."""
    (tmp_path / "own.litmus").write_text("region: m 4 writable\np @0\nstore m", encoding="utf-8")
    assert workload(f"{tmp_path}/own.litmus").name == "own"
    assert workload("munmap.litmus:pages=16").name.startswith("munmap:pages=16")
    with pytest.raises(LitmusError, match=r"one of those that ship .* did you mean 'munmap'"):
        workload("munmpa.litmus")


def test_the_example_of_the_page_is_a_test():
    """docs/litmus.md."""
    page = (Path(__file__).parents[2] / "docs/litmus.md").read_text(encoding="utf-8")
    text = page.partition("<!-- litmus example -->\n```\n")[2].partition("```")[0]
    one, other = family_of("page.litmus", "page", text).members()
    assert (one.name, other.name, one.machine["memory"]) == ("page:pages=1", "page:pages=16", [1024])
    assert [process.name for process in other.workload.processes] == ["p", "q"]


TOPICS = {
    "page": "a page leaves the allocator (take-off)",
    "mm-change": "the user changes mappings whose flush is pending",
    "write-fault": "a mapping becomes writable",
    "shared-map": "a second, writable mapping of the same file",
    "clear-flush": "a PTE is replaced (ptep_clear_flush: uprobes)",
    "lazy-mm": "CPUs that idle, or lend an address space to a kernel thread",
    "file-write": "write(2)",
    "I1": "nobody reads a frame that was handed out since",
    "I2": "nobody writes through a stale entry",
    "I3": "who has seen a store sees it at that address",
    "I4": "who is told of a file's new content reads it",
    "I5": "what a call has taken away is not used when it has returned",
    "I6": "bytes of a pending page never change in the allocator",
    "I7": "a CPU counts as done only if it can use nothing older",
    "I8": "a generation is used when its whole flush is over",
    "I9": "who cannot flush gets no pending page",
    "D": "nothing that was stored is lost",
    "lesson-8": "a user's change against reclaim or migration of the same pages, parallel zaps, many takers",
    "demotion": "reclaim moves pages to a slower node",
    "NUMA-hints": "the NUMA scanner, hint faults, promotion",
    "pins": "pages pinned for direct I/O",
    "fork": "fork",
    "free-lists": "pcp, buddy, merged and split blocks",
    "large-folios": "large folios",
    "pcid": "several address spaces on one CPU",
    "itlb": "instruction fetches",
    "parallel": "parallel zaps",
    "cpumask": "more CPUs than a word has bits",
    "wrap-around": "counters that come round",
}


def covered() -> str:
    """Give the table of docs/litmus.md: what is covered, by the files of which tests."""
    by: dict[str, list[str]] = {}
    for name in shipped():
        for word in litmus_test(name).covers:
            by.setdefault(word, []).append(name)
    lines = ["| what | | tests |", "|---|---|---|"]
    for word in [*TOPICS, *sorted(set(by) - set(TOPICS))]:
        lines.append(f"| `{word}` | {TOPICS.get(word, 'hook')} | {', '.join(by.get(word, ['none']))} |")
    return "\n".join(lines) + "\n"


def test_every_hook_trigger_and_invariant_has_a_test():
    """And the page says which. Renew: LUF_RENEW=1."""
    from allocator.hooks import HOOKS

    table = covered()
    words = set(re.findall(r"^\| `([\w-]+)`", table, re.M))
    assert words - set(TOPICS) - set(HOOKS) == set()
    assert set(HOOKS) - words == set()
    assert "| none |" not in table
    page = Path(__file__).parents[2] / "docs/litmus.md"
    text = page.read_text(encoding="utf-8")
    head, mark, kept = text.partition("<!-- covered -->\n")
    if os.environ.get("LUF_RENEW"):
        page.write_text(head + mark + table, encoding="utf-8")
    else:
        assert kept == table
