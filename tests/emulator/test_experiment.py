"""The talk's experiment end to end, small: real CPU processes, each design judged by the oracle and the
audit.
"""

import re
from itertools import islice

import pytest

from emulator.experiment import run_design, squeezed, workload_of
from emulator.machine import load_machine
from emulator.result import compare, to_json
from tests.emulator.test_schema import mistakes as schema_mistakes

SCALE = 2048


def run(
    design: str,
    *,
    cpus: int = 8,
    leases: int = 2,
    seed: int = 1,
    scale: float = SCALE,
    tokens: int = 1,
    **options,
):
    """One run of the talk's experiment, small enough for a test."""
    return run_design(
        design,
        load_machine("xeon6430-cxl", scale=scale, cpus=cpus),
        tokens=tokens,
        leases=leases,
        seed=seed,
        **options,
    )


@pytest.mark.parametrize("design", ["linux", "luf"])
@pytest.mark.parametrize("leases", [0, 2])
def test_sound_designs_are_clean_and_accounted_for(design, leases):
    """Under pressure, with and without the gate: no violation, and every frame, PTE, message and ack is where
    it belongs.
    """
    result = run(design, leases=leases)
    assert result.violations == []
    assert result.unaccounted == {}
    assert len(result.accounted) >= 15
    assert result.vmstat["pgsteal_file"] > 0
    assert result.vmstat["pgdemote_kswapd"] + result.vmstat["pgdemote_direct"] > 0
    assert result.ipi.requests > 0
    assert schema_mistakes(to_json(compare([result]))) == []


def test_none_is_caught_with_a_witness():
    """A design that never flushes is reported as reuse or stale, with CPU, address, page, expected and found
    content.

    Whether a stale translation is met depends on the schedule: up to six are explored, each exactly
    repeatable (one lease), until two have met one.
    """
    runs = (run("none", leases=1, seed=seed) for seed in range(1, 7))
    result, _ = islice((result for result in runs if result.violations), 2)
    first = result.violations[0]
    assert first["kind"] in ("reuse", "stale read", "lost write")
    assert 0 <= first["cpu"] < 8
    assert first["address"] == first["page"] * 4096
    assert first["expected"] != first["found"]
    assert "page" in first["expected"]
    assert any("unmap" in event["what"] for event in first["events"])


def test_luf_moves_shootdowns_from_reclaim_to_allocation():
    """Vanilla shoots down in kswapd and direct reclaim, LUF when pages are allocated again, and far less
    often.
    """
    linux, luf = run("linux", cpus=64), run("luf", cpus=64)
    assert luf.tlb_shootdowns < linux.tlb_shootdowns / 4
    assert linux.flush_sites.get("page allocation", 0) == 0
    assert luf.flush_sites["page allocation"] > luf.flush_sites.get("kswapd", 0) + luf.flush_sites.get(
        "direct reclaim", 0
    )
    assert linux.unmapped_read_only > 0.98


def test_controlled_runs_repeat_exactly():
    """One lease and one seed: the same events, counters and schedule each time; another seed, another
    schedule.
    """
    first = [run("luf", cpus=16, leases=1, seed=3) for _ in range(2)]
    assert first[0].fingerprint == first[1].fingerprint
    assert first[0].counters == first[1].counters
    assert run("luf", cpus=16, leases=1, seed=4).fingerprint != first[0].fingerprint


def test_free_runs_are_not_called_repeatable():
    """Two leases: inputs repeat, the interleaving does not. (If this ever fails, concurrency has become
    unreal.)
    """
    first = run("linux", cpus=16, seed=5).fingerprint
    assert any(run("linux", cpus=16, seed=5).fingerprint != first for _ in range(3))


def test_broadcasts_are_counted_apart():
    """What the hardware broadcasts interrupts nobody: requests are shootdowns and broadcasts, and vanilla has
    none of these.
    """
    broadcast, vanilla = run("invlpgb", leases=1), run("linux", leases=1)
    assert broadcast.broadcasts > 0
    assert broadcast.tlb_shootdowns + broadcast.broadcasts == broadcast.ipi.requests
    assert vanilla.length_text == "1 token"
    assert (vanilla.broadcasts, vanilla.tlb_shootdowns) == (0, vanilla.ipi.requests)


def test_strict_interrupts_send_one_message_per_request():
    """With --strict-ipi every request is a message of its own."""
    result = run("linux", strict_ipi=True)
    assert result.ipi.messages == result.ipi.requests == result.ipi.executed == result.ipi.acked
    assert result.clean


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"check": "Full"}, "'check' must be one of full, accesses, states, bounds, off (got 'Full')"),
        ({"leases": -1}, "'leases' must be a whole number from 0 to 62 (got -1)"),
        ({"leases": True}, "'leases' must be a whole number from 0 to 62 (got True)"),
        ({"slice_ns": 0}, "'slice_ns' must be a whole number from 1 to 1,000,000,000,000 (got 0)"),
        ({"seed": "x"}, "'seed' must be a whole number from 0 to 9,223,372,036,854,775,807 (got 'x')"),
        ({"tokens": "x"}, "'tokens' must be a whole number from 0 to 2,147,483,647 (got 'x')"),
        (
            {"machine": "guest-8cpu"},
            "'machine' must be a Machine, as load_machine returns it (got 'guest-8cpu')",
        ),
        ({"workload": 3}, "'workload' must be a name, a path or a Workload (got 3)"),
        (
            {"design": None},
            "'design' must be a name, FILE.py:CLASS or an object of a subclass of designs.Design (got None)",
        ),
    ],
)
def test_a_wrong_argument_is_one_sentence(change, sentence):
    """Nothing is built, and above all no oracle silently left out."""
    arguments = {"design": "linux", "machine": load_machine("guest-8cpu"), "workload": "tiny8"} | change
    with pytest.raises(ValueError, match="^" + re.escape(sentence) + "$"):
        run_design(**arguments)


@pytest.mark.parametrize("design", ["linux", "luf"])
def test_recorded_trace_under_pressure(design):
    """Real llama.cpp page visits, 3 threads, memory squeezed to 60 % of the working set: clean and accounted
    for.
    """
    trace = workload_of("t3", 1, 0, 1)
    full = load_machine("xeon6430-cxl", cpus=4)
    machine = load_machine("xeon6430-cxl", scale=squeezed(full, trace, 0.6), cpus=4)
    result = run_design(design, machine, trace, leases=2)
    assert sum(machine.pages) == pytest.approx(0.6 * trace.working_set_pages(), rel=0.01)
    assert result.clean
    assert result.vmstat["pgsteal_file"] > 1000
