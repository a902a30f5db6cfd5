"""LUF's debug feature in whole runs: sound designs have no finding; those of broken ones, how they are
reported and accounted for.
"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from allocator.pcp import drain_all_pages
from cpus.abi.numbers import LOAD, STORE
from designs.luf.debug import LUFD_KEPT
from designs.luf.sync.answers import SYNC
from emulator.cli import main
from emulator.experiment import run_design
from emulator.judge.audit import audit, audit_text
from emulator.machine import load_machine
from emulator.report.text import report_text
from emulator.result import from_json, to_json
from emulator.small_machine import ANON_VPN, FILE, FILE_VPN, SmallMachine
from tests.emulator.fixed import comparison, run

EXAMPLE = Path(__file__).parents[2] / "examples" / "debug_luf.py"
WRITTEN = EXAMPLE.with_name("written.toml")
NAMES = [*(f"luf:sync={sync}" for sync in SYNC), "luf_v12", "luf_v12:records=required"]


def debugged(design: str, leases: int = 1, seed: int = 1, **options):
    machine = load_machine("xeon6430-cxl", scale=4096, cpus=4)
    return run_design(design, machine, tokens=1, leases=leases, seed=seed, debug_luf=True, **options)


# --- whole runs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_a_sound_run_has_records_and_no_finding(name, seed):
    """4 CPUs, controlled mode: thousands of pages are freed with a key, each record is accounted for, nothing
    is found.
    """
    result = debugged(name, seed=seed)
    assert result.clean
    assert result.debug_luf["findings"] == 0
    assert result.debug_luf["checks"] > result.debug_luf["records"] > 1000
    assert result.accounted["debug record"] == [result.debug_luf["records"]] * 2


@pytest.mark.parametrize("name", ["luf", "luf_v12:records=required"])
def test_nor_have_cpus_that_run_at_once(name):
    """Without the gate: what others do between the notes and the look is taken for no finding, and no raise
    of a done-number is lost.
    """
    result = debugged(name, leases=0)
    assert result.clean
    assert result.debug_luf["records"] > 1000


@pytest.mark.parametrize(
    "name, same",
    [("luf", True), ("luf:sync=tick", True), ("luf_v12", True), ("luf_v12:records=required", False)],
)
def test_a_controlled_run_is_the_same_unless_debugging_flushes(name, same):
    """Records cost no virtual time, and one CPU at a time never waits for the lock; v12's flush before a
    fault is what changes its run.
    """
    plain = run_design(name, load_machine("xeon6430-cxl", scale=4096, cpus=4), tokens=1, leases=1, seed=1)
    assert (debugged(name).fingerprint == plain.fingerprint) == same
    assert (plain.debug_luf, plain.debug_findings) == ({}, [])
    assert "debug record" not in plain.accounted


@pytest.mark.parametrize(
    "name, how, record", [("SkipsTakeOff", "KMAP", "page"), ("ForgetsWriteFault", "MKWRITE", "mm")]
)
def test_a_forgotten_flush_is_found_though_nobody_reads(name, how, record):
    """The oracle has no access to judge; the run goes on to its end, and is not clean."""
    result = debugged(f"{EXAMPLE}:{name}")
    assert result.violations == []
    assert not result.clean
    assert result.debug_luf["findings"] > len(result.debug_findings) == LUFD_KEPT
    for finding in result.debug_findings:
        assert finding["site"].startswith(how)
        assert finding["record"] == record
        assert finding["lagging"]
        assert all(finding["done"][cpu] < finding["request"] for cpu in finding["lagging"])
        assert len(finding["done"]) == 4


UNSEEN = pytest.mark.parametrize(
    "name, kinds", [("luf_v12", ["stale read"]), ("luf_v12:records=required", []), ("luf", [])]
)


@UNSEEN
def test_what_it_cannot_see_and_the_oracle_can(name, kinds):
    """write(2) to a page that was reclaimed: as posted the file's record does not count, so nobody is
    flushed, and no finding is made.
    """
    result = run_design(name, load_machine("guest-8cpu"), str(WRITTEN), leases=1, debug_luf=True)
    assert [violation["kind"] for violation in result.violations] == kinds
    assert result.debug_luf["findings"] == 0
    assert result.debug_luf["records"] > 50


@UNSEEN
def test_nor_can_it_where_both_threads_run_at_once(name, kinds):
    """Then who reads a page in decides on whose LRU batch it is, and the other's madvise passes over it: the
    written one may stay.
    """
    result = run_design(name, load_machine("guest-8cpu"), str(WRITTEN), leases=2, debug_luf=True)
    assert [violation["kind"] for violation in result.violations] in ([], kinds)
    assert result.debug_luf["findings"] == 0


# --- the command, the result and the screen -----------------------------------------------------------------


@pytest.mark.parametrize("designs", [["run", "linux"], ["compare", "luf", "luf_hold"], ["compare"]])
def test_other_designs_are_refused(capsys, tmp_path, monkeypatch, designs):
    """One sentence, exit code 2, before anything has run."""
    monkeypatch.chdir(tmp_path)
    assert main([*designs, "--debug-luf", "--leases", "2"]) == 2
    wrong = "luf_hold" if "luf_hold" in designs else "linux"
    assert capsys.readouterr().err == (
        "luf: '--debug-luf' looks at LUF's keys and records: give luf, luf_v12 or one made "
        f"of them (got {wrong!r})\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_design_with_a_hook_in_its_place_is_refused(capsys, tmp_path, monkeypatch):
    """The debug feature needs hook_kmap for itself."""
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(
        "from designs.design import hook\nfrom designs.luf.luf import Luf\n\n"
        '@hook("kmap")\ndef look(ram, cpu, a, b, c, d):\n    return 0\n\n'
        "class Own(Luf):\n    name = 'own'\n    hooks = (*Luf.hooks, look)\n"
    )
    assert main(["run", "own.py:Own", "--debug-luf", "--leases", "2"]) == 2
    assert (
        capsys.readouterr().err
        == "luf: '--debug-luf' needs a hook that design 'own' has taken itself (got 'look')\n"
    )


def test_findings_make_the_exit_code_1_and_are_in_the_json(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = (
        f"run {EXAMPLE}:SkipsTakeOff --debug-luf --cpus 4 --scale 4096 --leases 1 --tokens 1 --json out.json"
    )
    assert main(line.split()) == 1
    assert "\nLUF DEBUG  kmap: frame " in capsys.readouterr().out
    (written,) = json.loads(Path("out.json").read_text())["runs"]
    assert len(written["debug_findings"]) == LUFD_KEPT
    assert written["debug_luf"]["findings"] > LUFD_KEPT
    assert main(["report", "runs/latest"]) == 1
    assert "\nLUF DEBUG  kmap: frame " in capsys.readouterr().out


PAGE = {
    "site": "KMAP_ZERO", "function": "do_anonymous_page(), mm/memory.c", "cpu": 2, "task": "llama3, thread 0",
    "t_ns": 18_402_300, "frame": 2599, "record": "page", "request": 163, "lagging": [0, 9],
    "done": [1, 2644, 2644, *range(2000, 2006), 5], "mm": 3, "address": 0x1200_0000, "key": 2,
    "held": "file locale, page 18", "freed_by": 3, "freed_ns": 16_886_100,
}  # fmt: skip
FILE_RECORD = {
    "site": "KMAP_WRITE", "function": "generic_perform_write(), mm/filemap.c", "cpu": 0,
    "task": "p, thread 0", "t_ns": 1000, "frame": 7, "record": "file", "record_of": "file data", "request": 9,
    "lagging": [1], "done": [12, 3], "page": "file data, page 3",
}  # fmt: skip


def test_a_finding_reads_like_a_kernel_warning():
    """What is about to happen, who, in which function, whose record, and the done-numbers of all CPUs, those
    that lag marked.
    """
    broken = run("luf", debug_luf={"records": 40, "checks": 100, "findings": 7}, debug_findings=[PAGE])
    text = report_text(comparison(broken))
    assert "luf debug           luf: 7 findings   40 records, 100 frames looked at\n" in text
    assert text[text.index("LUF DEBUG") : text.index("\nmore:")] == (
        "LUF DEBUG  kmap: frame 2599 is about to be written to, and cpu0, cpu9 have "
        "not done its record       "
        "design luf, seed 1, t = 18,402.3 us\n"
        "  WARNING: CPU: 2 (llama3, thread 0) at do_anonymous_page(), mm/memory.c, for mm 3 at 0x1200_0000\n"
        "    frame 2599 held file locale, page 18; freed by cpu3 at 16,886.1 us with key 2, request 163\n"
        "    done-numbers, ! where older than 163 and named by the record:\n"
        "      cpu0 1!  cpu1 2,644  cpu2 2,644  cpu3 2,000  cpu4 2,001  cpu5 2,002  cpu6 2,003  cpu7 2,004\n"
        "      cpu8 2,005  cpu9 5!\n"
        "  ... and 6 more; the first 1 are in the run folder's JSON\n"
    )


def test_a_finding_about_a_files_record_names_the_file():
    text = report_text(
        comparison(
            run("luf", debug_luf={"records": 4, "checks": 9, "findings": 1}, debug_findings=[FILE_RECORD])
        )
    )
    assert (
        "LUF DEBUG  kmap: frame 7 is about to be written to, and cpu1 has not done the record of file data"
        in text
    )
    assert "at generic_perform_write(), mm/filemap.c, for file data, page 3\n" in text
    assert "luf: 1 finding   " in text
    assert "more; the first" not in text


def test_a_run_that_was_not_debugged_says_nothing_of_it():
    assert "luf debug" not in report_text(comparison())
    assert "luf: no finding   " in report_text(
        comparison(run("luf", debug_luf={"records": 4, "checks": 9, "findings": 0}))
    )


def test_findings_survive_json():
    broken = comparison(
        run("luf", debug_luf={"records": 40, "checks": 100, "findings": 1}, debug_findings=[PAGE])
    )
    assert msgspec.to_builtins(from_json(to_json(broken))) == msgspec.to_builtins(broken)
    assert not broken.clean


# --- the audit ----------------------------------------------------------------------------------------------


@pytest.fixture
def machine():
    """CPUs 0 and 1 have read a file; it was reclaimed: records in pcp lists and in the buddy, some of them
    looked at.
    """
    machine = SmallMachine(pages=(512,), cpus=2, mms=1, design="luf", debug_luf=True)
    for cpu in (0, 1):
        machine.run(1, cpu=cpu)
        machine.use(FILE_VPN, 64, LOAD, cpu=cpu)
    machine.reclaim_file(FILE)
    drain_all_pages(machine.ram, 0, 0)
    machine.ram.wmark_min[0] = 512
    machine.use(ANON_VPN, 16, STORE)
    yield machine
    machine.ram.close()


def record(machine, used):
    """A frame with a record that is on a pend list, or one that is in use and has none."""
    ram = machine.ram
    if used:
        return machine.pfn(1, ANON_VPN)
    return int((ram.lufd_ugen != 0).nonzero()[0][0])


def test_records_are_accounted_for(machine):
    expected, right = audit(machine.ram)["debug record"]
    assert expected == right == machine.ram.lufd_marked.sum() > 60
    assert 0 < machine.ram.lufd_cleared.sum() < expected


def test_a_record_that_is_lost_is_missed(machine):
    machine.ram.lufd_ugen[record(machine, used=False)] = 0
    assert audit_text(machine.ram).startswith("debug record: records that were made: expected ")


def test_a_record_of_a_frame_in_use_was_never_looked_at(machine):
    pfn = record(machine, used=True)
    machine.ram.lufd_ugen[pfn], machine.ram.lufd_key[pfn] = 5, 9
    machine.ram.lufd_marked[0] += 1
    assert (
        audit_text(machine.ram)
        == f"debug record: frame {pfn} is in use, and its record (key 9) was never looked at"
    )


def test_a_free_frame_whose_record_nobody_would_flush_for(machine):
    """Its generation is said to be done, and CPU 1 has not done what its record says (as in a design that
    skips the flush).
    """
    ram = machine.ram
    pfn = record(machine, used=False)
    ram.lufd_ugen[pfn], ram.lufd_mask[pfn, 0] = 1 << 40, 1 << 1
    assert audit_text(ram).startswith(
        f"debug record: free frame {pfn} may be taken as it is, and cpu1 has not done its record (key "
    )
