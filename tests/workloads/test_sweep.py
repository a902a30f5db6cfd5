"""The pressure workload is the record's: who runs where, what each thread touches, and what is measured."""

import pytest

from workloads import validate
from workloads.rows import LOAD, POST, SNAPSHOT, STORE, VISIT, WAIT_FOR
from workloads.sweep import AFTER, BEFORE, sweep


@pytest.mark.parametrize(
    ("cpus", "expected"),
    [
        (1, [(0,), (0,), (0,)]),  # three threads share CPU 0
        (4, [(0, 3), (1,), (2,)]),
        (8, [(0, 3, 6), (1, 4, 7), (2, 5)]),
    ],
)
def test_thread_k_is_of_process_k_mod_3_on_cpu_k_mod_t(cpus, expected):
    work = sweep("file_ro", cpus=cpus, mib=1)
    validate(work)
    assert [process.cpus for process in work.processes[:3]] == expected
    assert [len(process.threads) for process in work.processes] == [*map(len, expected), 1]


def test_a_thread_warms_up_meets_the_others_and_sweeps():
    """Its stack page, one sweep, then all meet, asleep; then the measured sweeps."""
    rows = sweep("file_ro", cpus=1, mib=2, sweeps=2).processes[0].threads[0]
    assert rows["op"].tolist() == [VISIT, VISIT, POST, WAIT_FOR, VISIT, VISIT, POST]
    sweeps = rows[[1, 4, 5]]
    assert sweeps["pages"].tolist() == [512] * 3
    assert (set(sweeps["kind"].tolist()), set(sweeps["count"].tolist())) == ({LOAD}, {1})


def test_the_snapshots_enclose_the_measured_sweeps():
    """Before anybody is let go, and after all have finished."""
    rows = sweep("anon_rw", cpus=4, mib=1).processes[-1].threads[0]
    assert rows["op"].tolist() == [WAIT_FOR, SNAPSHOT, POST, WAIT_FOR, SNAPSHOT]
    assert rows["page"][[1, 4]].tolist() == [BEFORE, AFTER]
    assert rows["pages"][[0, 3]].tolist() == [4, 4]


def test_files_are_mapped_shared_and_read_only_memory_is_stored_to():
    file, memory = (sweep(kind, cpus=1, mib=1).processes[0] for kind in ("file_ro", "anon_rw"))
    assert (file.regions[0].shared, file.regions[0].writable, file.regions[0].file) == (True, False, "big0")
    assert (memory.regions[0].writable, memory.regions[0].file) == (True, None)
    assert memory.threads[0]["kind"][1] == STORE


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"kind": "file"}, "'kind' must be one of file_ro, anon_rw (got 'file')"),
        ({"cpus": 0}, "'cpus' must be at least 1 (got 0)"),
        ({"mib": 0}, "'mib' must be at least 1 (got 0)"),
    ],
)
def test_bad_input_gets_one_sentence(wrong, sentence):
    with pytest.raises(ValueError) as caught:
        sweep(**({"kind": "file_ro", "cpus": 1} | wrong))
    assert str(caught.value) == sentence
