"""The generated workloads: valid for any number of CPUs, the same for a seed, and wrong parameters refused in
one sentence.
"""

from __future__ import annotations

import numpy as np
import pytest

from workloads import is_recorded, names, validate, workload
from workloads import rows as p
from workloads.generated import GENERATORS, lines
from workloads.parameters import Room

ASKED = [
    "xsbench",
    "xsbench:file=1",
    "munmap-storm",
    "readers-writer",
    "churn",
    "fork-storm",
    "direct-io",
    "uprobes",
    "read-only:0%",
    "read-only:50%",
    "read-only:99%",
    "read-only:99%,order=4",
]


def ops(made: p.Workload) -> set[int]:
    """Return the operations of all rows."""
    return {
        op for process in made.processes for rows in process.threads for op in np.unique(rows["op"]).tolist()
    }


def test_each_is_listed_with_its_parameters():
    """`luf list` shows them all; none is taken for a recording."""
    assert {name.partition(":")[0] for name in ASKED} == set(GENERATORS) <= set(names())
    assert lines()["munmap-storm"].endswith("(threads, pages)")
    assert not any(is_recorded(name) for name in ASKED)


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("cpus", [2, 7, 128])
def test_valid_for_any_number_of_cpus(asked: str, cpus: int):
    """Every program can be executed to its end, has its name and line, and marks its rounds."""
    made = workload(asked, tokens=2, room=Room(cpus, 8192))
    validate(made)
    assert (made.name, made.tokens, made.exact) == (asked, 2, True)
    assert made.description
    assert p.MARK in ops(made)
    assert sum(len(process.threads) for process in made.processes) <= max(3, cpus)


@pytest.mark.parametrize("asked", ASKED)
def test_the_seed_decides_what_is_random(asked: str):
    """Same seed, same rows; another one, other rows of the same regions."""
    one, again, other = (
        workload(asked, tokens=1, seed=seed, room=Room(8, 4096)).processes for seed in (1, 1, 2)
    )
    every = [[rows.tolist() for process in made for rows in process.threads] for made in (one, again, other)]
    assert every[0] == every[1] != every[2]
    assert [process.regions for process in one] == [process.regions for process in other]


def test_parameters_and_rounds():
    """`NAME:key=value` sets what it names; tokens are rounds."""
    short, long = (workload("munmap-storm:threads=3,pages=5", tokens=n) for n in (1, 4))
    assert [len(process.threads) for process in short.processes] == [3]
    assert short.processes[0].regions[0].pages == 15
    assert long.stored_rows() > 3 * short.stored_rows()
    assert len(workload("churn", threads=6).processes[0].threads) == 3


def test_read_only_maps_the_share_that_was_asked_for():
    """50 % of the pages in a region that is not writable; 0 % has no such region."""
    half, none = workload("read-only:50%"), workload("read-only:0")
    for process in half.processes:
        read, written = process.regions
        assert read.pages == pytest.approx(written.pages, abs=1)
        assert (read.writable, written.writable) == (False, True)
    assert [region.writable for process in none.processes for region in process.regions] == [True] * 3


def test_read_only_takes_an_order():
    """All files are cached in folios of that order."""
    regions = [
        region for process in workload("read-only:50%,order=4").processes for region in process.regions
    ]
    assert {region.folio_order for region in regions} == {4}


def test_pairs_of_a_storm_look_at_each_others_pages():
    """Every even thread shows its pages to the odd one behind it, as often as that one looks; the last of
    three has no partner.
    """
    threads = workload("munmap-storm:threads=3", tokens=2).processes[0].threads
    posts = [[int(row["page"]) for row in rows if row["op"] == p.POST] for rows in threads]
    spins = [[int(row["page"]) for row in rows if row["op"] == p.SPIN] for rows in threads]
    assert [len(set(flags)) for flags in posts] == [1, 1, 0]
    assert (posts[0], spins[0]) == (spins[1], posts[1])
    assert len(posts[0]) == 6


def test_each_does_what_it_is_for():
    """The rows that a kernel developer will look for."""
    assert {p.MUNMAP, p.MMAP, p.MPROTECT, p.MADVISE} <= ops(workload("munmap-storm", tokens=4))
    assert {p.WRITE, p.TRUNCATE, p.SYNC} <= ops(workload("readers-writer"))
    assert {p.FORK, p.EXIT_MM} <= ops(workload("fork-storm"))
    assert p.MADVISE in ops(workload("churn"))
    assert {p.DIRECT_READ, p.DIRECT_WRITE} <= ops(workload("direct-io"))
    assert p.UPROBE in ops(workload("uprobes"))
    assert [region.writable for region in workload("xsbench").processes[0].regions] == [True, False, True]
    assert [region.writable for region in workload("xsbench:file=1").processes[0].regions] == [
        False,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"name_or_path": "churn:pags=3"},
            r"^workload 'churn': a parameter must be one of threads=N, pages=N \(got 'pags=3'\)$",
        ),
        (
            {"name_or_path": "churn:pages=x"},
            r"^workload 'churn': 'pages' must be a whole number from 8 to 1048576 \(got 'x'\)$",
        ),
        ({"name_or_path": "churn:pages=9,pages=9"}, "'pages' must be given once"),
        (
            {"name_or_path": "munmap-storm:threads=0"},
            r"'threads' must be a whole number from 1 to 256 \(got '0'\)",
        ),
        (
            {"name_or_path": "read-only"},
            r"'share' must be a whole number from 0 to 100 \(got ''\)|'share' must be given",
        ),
        ({"name_or_path": "read-only:1%,order=9"}, "'order' must be a whole number from 0 to 6"),
        ({"name_or_path": "read-only:101%"}, r"'share' must be a whole number from 0 to 100 \(got '101'\)"),
        ({"name_or_path": "fork-storm", "threads": 3}, "'threads' must be left to 'fork-storm'"),
        ({"name_or_path": "xsbench", "processes": 3}, "'processes' must be left to 'xsbench'"),
        ({"name_or_path": "xsbench", "tokens": 0}, "'tokens' must be from 1 to 1000 rounds"),
    ],
)
def test_wrong_requests(arguments: dict, message: str):
    """One sentence with parameter, rule and value."""
    with pytest.raises(ValueError, match=message):
        workload(**arguments)
