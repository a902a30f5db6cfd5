"""Pressure runs of the record on the emulator: the same structure, checked in full, and bands that can be
missed.
"""

import pytest

from emulator.golden.bands import FACTORS
from emulator.golden.pressure import (
    PRESSURE_ROWS,
    _sweeps,
    derived,
    emulate_pressure,
    pressure_machine,
    pressure_runs,
)

SETTINGS = {"numa_balancing": "2", "demotion_enabled": "true"}
ENTRY = {
    "tag": "f2_d1n2",
    "T": 2,
    "workload": "file_ro",
    "mb_per_proc": 288,
    "sweeps": 1,
    "env": "f2_d1n2",
    "settings": SETTINGS,
}


@pytest.fixture(scope="module")
def emulated():
    """Two CPUs, files of 1.3 x memory."""
    return emulate_pressure(ENTRY)


def test_a_run_under_pressure_is_clean_and_has_the_records_structure(emulated):
    assert (emulated["clean"], emulated["findings"]) == (True, [])
    assert {"counters", "derived", "tlb_flush", "settings", "page_touches", "host_seconds"} <= set(emulated)
    assert emulated["page_touches"] == 3 * 288 * 256
    assert sum(emulated["tlb_per_cpu"]) == emulated["counters"]["tlb_ipi"]
    sent = sum(
        count
        for event, count in emulated["tlb_flush_by_reason_pages"].items()
        if event.startswith("remote_send_ipi/")
    )
    assert sent == sum(emulated["send_ipi_by_site"].values()) == emulated["derived"]["shootdown_broadcasts"]


def test_every_row_has_a_value_where_files_are_swept_with_demotion(emulated):
    """But for promotions: read-only files are not scanned."""
    values = {row.name: row.value(emulated) for row in PRESSURE_ROWS}
    assert [name for name, value in values.items() if not value] == ["pages promoted per second"], values
    assert {row.kind for row in PRESSURE_ROWS} == set(FACTORS)


def test_what_linux_does_whatever_the_time_shows_in_the_counts(emulated):
    """A flush per 31 freed pages at most; a used page is looked at twice; most of what is touched was evicted
    before.
    """
    rows = {row.name: row.value(emulated) for row in PRESSURE_ROWS}
    assert rows["pages per broadcast, reclaim"] > 10
    assert 0.4 < rows["share of reclaimed among scanned"] < 0.75
    assert 700 < rows["refaults per 1000 touches"] <= 1001


def test_ratios_are_those_of_the_record():
    """Formulas as the record's README gives them; without events there is no ratio."""
    counters = {
        "tlb_ipi": 60,
        "pgsteal_kswapd": 30,
        "pgsteal_direct": 90,
        "pgdemote_kswapd": 20,
        "pgscan_kswapd": 240,
        "pgmajfault": 3,
    }
    found = derived(counters, {"kswapd/reclaim_unmap": 3, "direct/reclaim_unmap": 9}, 2000)
    assert (found["pages_stolen"], found["pages_stolen_without_demoted"], found["shootdown_broadcasts"]) == (
        120,
        100,
        12,
    )
    assert (found["ipis_per_broadcast"], found["ipis_per_stolen_page"], found["kswapd_share_of_steal"]) == (
        5.0,
        0.5,
        0.25,
    )
    assert (found["scan_efficiency"], found["major_faults_per_1000_touches"]) == (0.5, 1.5)
    assert derived({}, {}, 1)["ipis_per_broadcast"] is None


def test_the_machine_is_the_recorded_guest_with_the_runs_settings():
    machine = pressure_machine(ENTRY | {"settings": {"numa_balancing": "0", "demotion_enabled": "false"}})
    assert (machine.name, machine.sysctl.numa_balancing, machine.sysctl.demotion_enabled) == (
        "guest-8cpu-tcg",
        0,
        False,
    )
    assert pressure_machine(ENTRY | {"env": "pt"}).nodes[1].memory_mib == 960
    assert pressure_machine(ENTRY, {"host.cores": 1}).host.cores == 1


def test_runs_are_named_in_the_records_order():
    """Other workloads cannot be played: they are not named, and so reported as not run."""
    runs = [("b", "anon_rw"), ("a", "file_ro"), ("d", "file_rw")]
    assert pressure_runs({"pressure": [{"tag": tag, "workload": kind} for tag, kind in runs]}) == ["b", "a"]


@pytest.mark.parametrize(
    "T, mib, sweeps", [(1, 150, 200), (8, 150, 1400), (2, 150, 200), (4, 75, 2800), (4, 1 << 20, 1)]
)
def test_anonymous_runs_are_as_long_whatever_their_size(T, mib, sweeps):
    """The record's were stopped by time, whatever `sweeps` says; those of files have as many as recorded."""
    entry = ENTRY | {"workload": "anon_rw", "T": T, "mb_per_proc": mib, "sweeps": 3000}
    assert _sweeps(entry) == sweeps
    assert _sweeps(entry | {"workload": "file_ro"}) == 3000
