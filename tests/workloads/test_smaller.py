"""Litmus tests as text again, and smaller ones made of one."""

from __future__ import annotations

import numpy as np
import pytest

from workloads.litmus import smaller
from workloads.litmus.laid_out import text_of
from workloads.litmus.sheet import lines_of, read_sheet
from workloads.litmus.shelf import litmus_tests, shipped
from workloads.litmus.test import litmus_of

TEXT = """
about:    a
machine:  cpus = 3, memory = 1024 + 512
machine:  tlb.pcid = false
needs:    pgfault > 0
region:   m 64 writable
region:   f 9 file=f shared

p @0            | p @1 | q @last
repeat 3        | load m; meet a | load f 3 4
  store m 8 4   | until gone |
  repeat 2 k    |   load m count=100 |
    munmap m    | end |
  end           |  |
end             | |
meet a; post gone | |
"""


def sheet_of(text):
    return read_sheet("t", lines_of("t", text))


def rows_of(sheet):
    workload = litmus_of(sheet, "t").workload
    return [(p.name, p.cpus, p.regions, [rows.tolist() for rows in p.threads]) for p in workload.processes]


SHEET = sheet_of(TEXT)
COMES_BACK = "p @0                | p @1                  | q @last"


@pytest.mark.parametrize("name", shipped())
def test_what_is_written_is_what_was_read(name):
    """Every test that ships: the same rows, regions and machine."""
    for test in litmus_tests(name):
        again = sheet_of(text_of(test.sheet))
        assert rows_of(again) == rows_of(test.sheet)
        assert litmus_of(again, "t").machine == test.machine


def test_columns_are_written_beside_each_other():
    """Loops are indented, and what is short is filled up."""
    text = text_of(SHEET)
    assert text.splitlines()[7:11] == [
        "p @0           | p @1                | q @last",
        "repeat 3       | load m              | load f 3 4",
        "  store m 8 4  | meet a              |",
        "  repeat 2 k   | until gone          |",
    ]
    assert text_of(sheet_of(text)) == text


def test_more_calls_than_lines_share_cells():
    """A file has at most 400 lines."""
    calls = "\n".join(f"store m {n % 64}" for n in range(390))
    sheet = sheet_of(f"region: m 64 writable\np @0\n{calls}")
    sheet.columns[0].calls *= 5
    text = text_of(sheet)
    assert len(text.splitlines()) < 400
    assert rows_of(sheet_of(text)) == rows_of(sheet)


def test_counts():
    """Calls as they are written, pages of all regions."""
    assert smaller.count_calls(SHEET) == 8
    assert smaller.count_pages(SHEET) == 73


def test_calls_have_paths():
    """And the calls that are kept keep their loops; an empty loop goes."""
    assert [smaller.call_at(SHEET, path).words[0] for path in smaller.paths(SHEET)] == [
        "repeat", "store", "repeat", "munmap", "meet", "post", "load", "meet", "until", "load", "load",
    ]  # fmt: skip
    everything = smaller.with_calls(SHEET, smaller.paths(SHEET))
    assert text_of(everything) == text_of(SHEET)
    only = smaller.with_calls(SHEET, [(0, 0), (0, 0, 1), (0, 0, 1, 0), (1, 2), (2, 0)])
    assert [
        [smaller.call_at(only, path).words for path in smaller.paths(only) if path[0] == c] for c in (0, 1, 2)
    ] == [[("repeat", "3"), ("repeat", "2", "k"), ("munmap", "m")], [], [("load", "f", "3", "4")]]


def test_a_call_is_changed_in_its_place():
    """Into nothing, one or several."""
    path = (0, 0, 1)
    body = smaller.call_at(SHEET, path).body
    opened = smaller.changed(SHEET, path, body)
    assert smaller.call_at(opened, path).words == ("munmap", "m")
    gone = smaller.changed(SHEET, path, [])
    assert len(smaller.call_at(gone, (0, 0)).body) == 1
    assert text_of(SHEET) == text_of(sheet_of(TEXT))  # nothing has changed the one that it was made of


@pytest.mark.parametrize(
    ("words", "others"),
    [
        ("load m", ["load"]),
        ("load m 8 4", ["load m 8", "load m 0 4", "load m 1 4", "load m 4 4", "load m 6 4", "load m 8 0",
                        "load m 8 1", "load m 8 2", "load m 8 3"]),
        ("load m count=2", ["load m", "load m count=0", "load m count=1"]),
        ("repeat 5; load m; end", ["repeat 0", "repeat 1", "repeat 2", "repeat 3"]),
        ("until a; load m; end", []),
    ],
)  # fmt: skip
def test_fewer_words(words, others):
    """A call without its last word, and with smaller numbers; of a loop the number of times."""
    call = sheet_of(f"region: m 64\np @0\n{words}").columns[0].calls[0]
    assert [" ".join(other.words) for other in smaller.fewer_words(call)] == others


def test_smaller_regions():
    """Fewer pages first, then fewer words."""
    assert list(smaller.smaller_regions("m 4 writable shared")) == [
        "m 0 writable shared", "m 1 writable shared", "m 2 writable shared", "m 3 writable shared",
        "m 4 shared", "m 4 writable",
    ]  # fmt: skip


def test_columns_lose_together_what_they_wait_for():
    """A meeting goes everywhere, what was done until a flag is done once."""
    assert smaller.flags(SHEET) == ["a", "gone"]
    apart = smaller.without_flag(smaller.without_flag(SHEET, "a"), "gone")
    assert not smaller.flags(apart)
    assert [smaller.call_at(apart, path).words for path in smaller.paths(apart) if path[0] == 1] == [
        ("load", "m"), ("load", "m", "count=100"),
    ]  # fmt: skip


def test_loops_of_one_count_do_fewer_times_together():
    """Of one time, what is in them is left."""
    sheet = sheet_of(
        "region: m 4\np @0 | q @1\nrepeat 8; meet a; end | repeat 8; meet a; end; repeat 3; load m; end"
    )
    assert smaller.loop_counts(sheet) == ["8", "3"]
    fewer = smaller.with_count(sheet, "8", "4")
    assert smaller.loop_counts(fewer) == ["4", "3"]
    assert len(rows_of(fewer)) == 2
    once = smaller.with_count(sheet, "8", "1")
    assert [smaller.call_at(once, path).name for path in smaller.paths(once)] == [
        "meet",
        "meet",
        "repeat",
        "load",
    ]


def test_regions_that_no_call_names_go():
    """Those that are named as memory of a direct call stay."""
    sheet = sheet_of("region: a 1\nregion: b 2\nregion: c 3\np @0\nload a\ndirect_read a buffer=c")
    left = smaller.without_unused_regions(sheet)
    assert [line.text for _, line in left.heads] == ["a 1", "c 3"]


def test_bare():
    """What a test was for goes; keys of the machine stand on a line each."""
    heads = [(key, line.text) for key, line in smaller.bare(SHEET, "why").heads]
    assert heads == [
        ("about", "why"), ("machine", "cpus = 3"), ("machine", "memory = 1024 + 512"),
        ("machine", "tlb.pcid = false"), ("region", "m 64 writable"), ("region", "f 9 file=f shared"),
    ]  # fmt: skip
    assert litmus_of(smaller.bare(SHEET, "why"), "t").machine == litmus_of(SHEET, "t").machine


def test_random_parts_of_a_test_are_tests_or_refused():
    """Whatever is left out, the rest reads again as it was written, or is refused in a sentence."""
    random, refused = np.random.default_rng(7), 0
    paths = smaller.paths(SHEET)
    for _ in range(200):
        kept = [path for path in paths if random.random() < 0.7]
        part = smaller.with_calls(SHEET, kept)
        part = smaller.with_columns(part, [column for column in part.columns if column.calls])
        if not part.columns:
            continue
        text = text_of(part)
        assert text_of(sheet_of(text)) == text
        try:
            litmus_of(sheet_of(text), "t")
        except ValueError as error:
            assert str(error).startswith("t")  # noqa: PT017
            refused += 1
    assert 0 < refused < 200
