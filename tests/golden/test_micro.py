"""A handful of cheap cells, emulated for real, do exactly what the real kernel did; the same seed repeats
them; a wrong kernel is found.
"""

from __future__ import annotations

import re

import pytest

from emulator.golden import micro as golden_micro
from emulator.golden.compare import AGREES, DIFFERS, VARIES, judge_cells
from emulator.golden.data import kernel_folder, read_recording
from emulator.golden.rules import read_explained, read_rules
from emulator.host_facts import HostError
from emulator.stopped import CpuDied, HostFault, Panicked

FOLDER = kernel_folder("6.12")
SCENARIOS = (
    "a_munmap_iso",
    "k_sleep_munmap_nbr",
    "f_cow_write",
    "i_file_pageout",
    "m_truncate",
    "e_mremap_aligned",
)
THREADS, PAGES = 4, (1, 34, 64)


@pytest.fixture(scope="module")
def recorded():
    """The cells of the recording that are emulated here."""
    cells = [
        cell
        for cell in read_recording(FOLDER).micro
        if cell.scenario in SCENARIOS and cell.T == THREADS and cell.P in PAGES
    ]
    assert len(cells) == len(SCENARIOS) * len(PAGES)
    return cells


@pytest.fixture(scope="module")
def emulated(recorded):
    return golden_micro.emulate_micro([cell.key for cell in recorded])


def differing(recorded, found):
    rows = judge_cells(
        recorded, found, golden_micro.scenario_names(), read_rules(FOLDER), read_explained(FOLDER)
    )
    assert [row for row in rows if row.verdict not in (AGREES, DIFFERS, VARIES)] == []
    return {(*row.key, row.metric) for row in rows if row.verdict == DIFFERS}


def test_every_cell_ran_to_its_end_and_accounts_for_everything(recorded, emulated):
    assert set(emulated) == {cell.key for cell in recorded}
    assert {
        key: (cell.clean, cell.problem) for key, cell in emulated.items() if not cell.clean or cell.problem
    } == {}


def test_interrupts_faults_and_events_are_those_of_the_real_kernel(recorded, emulated):
    """All of them, in every repetition; no explanation is needed."""
    assert differing(recorded, emulated) == set()
    interrupts = {key: cell.counters["tlb_ipi"] for key, cell in emulated.items()}
    assert interrupts["f_cow_write", 4, 64] == [198] * 3  # three others, 64 pages and 2 of the program's own
    assert interrupts["k_sleep_munmap_nbr", 4, 64] == [0] * 3  # lazy CPUs are left alone
    assert interrupts["i_file_pageout", 4, 64] == [9] * 3  # a batch for each SWAP_CLUSTER_MAX pages


def test_the_same_seed_gives_the_same_cells(emulated):
    """Twice the same figures, in whatever order the machines run."""
    keys = [key for key in emulated if key[0] in ("f_cow_write", "m_truncate")]
    again = golden_micro.emulate_micro(keys[::-1], jobs=1)
    assert again == {key: emulated[key] for key in keys}


def test_a_planted_bug_is_found(recorded, monkeypatch):
    """A kernel that flushes everything from 17 pages on: cells of 34 pages cannot tell, one of 33 can; and
    one of P = 1 agrees still.
    """
    every = read_recording(FOLDER).micro
    cells = [
        cell
        for cell in every
        if cell.scenario == "a_munmap_iso" and cell.T == THREADS and cell.P in (1, 33, 34)
    ]
    monkeypatch.setattr(
        golden_micro, "SETTINGS", golden_micro.SETTINGS | {"sysctl.tlb_single_page_flush_ceiling": 16}
    )
    found = golden_micro.emulate_micro([cell.key for cell in cells])
    wrong = differing(cells, found)
    assert {pages for _, _, pages, _ in wrong} == {33}
    assert {metric for *_, metric in wrong} == {
        f"{reason}/{pages}"
        for reason in ("remote_shootdown", "local_mm_shootdown", "remote_send_ipi")
        for pages in ("33", "all0")
    }


@pytest.mark.parametrize("jobs_of", [1, 2])
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (CpuDied("cpu0 was killed by SIGKILL"), True),
        (HostFault("the host cannot start a process"), True),
        (HostError("the host gives no more memory"), True),
        (OSError(24, "Too many open files"), True),
        (Panicked("cpu0: no page is left", 0, 1, 2, 3), False),
        (ZeroDivisionError("ours"), False),
    ],
)
def test_what_the_host_does_is_no_difference(error, told, jobs_of, monkeypatch):
    """It ends the comparison, from the first machine or from one in a process of its own; what a machine
    does by itself is reported beside its cells.
    """
    keys = [("a_munmap_iso", 2, 1), ("b_dontneed", 2, 1)][:jobs_of]
    real = golden_micro.run_design

    def fails(design, machine, workload, **options):
        if keys[-1][0] in workload.name:
            raise error
        return real(design, machine, workload, **options)

    monkeypatch.setattr(golden_micro, "run_design", fails)
    if told:
        with pytest.raises(type(error), match=re.escape(str(error))):
            golden_micro.emulate_micro(keys, jobs=1)
    else:
        assert golden_micro.emulate_micro(keys, jobs=1)[keys[-1]].problem == str(error)
