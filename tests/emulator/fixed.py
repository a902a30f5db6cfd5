"""A fixed comparison, and an experiment that answers with it: no engine runs in these tests."""

from __future__ import annotations

from dataclasses import fields

from emulator.result import Comparison, Ipi, Result, Series, Unmapped, compare

CPUS = 4


def run(design: str = "linux", **changes) -> Result:
    """Return a run with plain figures; `changes` replace fields."""
    luf = design == "luf"
    per_cpu = [10, 12, 9, 11] if luf else [400, 380, 410, 390]
    sites = (
        {"page allocation": 37, "write fault": 3}
        if luf
        else {"kswapd": 61, "direct reclaim": 36, "migration": 2, "other": 1}
    )
    figures = {
        "design": design,
        "tlb_shootdowns": sum(per_cpu),
        "tlb_shootdowns_per_cpu": per_cpu,
        "dtlb_load_misses": 1_000_500 if luf else 2_001_000,
        "dtlb_store_misses": 50_000 if luf else 200_000,
        "itlb_load_misses": 8_000 if luf else 40_000,
        "runtime_ns": [1_789_000_000, 1_790_000_000, 1_788_000_000]
        if luf
        else [1_871_000_000, 1_872_000_000, 1_870_000_000],
        "ipi": Ipi(
            requests=sum(per_cpu), messages=sum(per_cpu) - 10, executed=sum(per_cpu), acked=sum(per_cpu)
        ),
        "unmap": Unmapped(ro=991, rw=9),
        "flush_sites": sites,
        "vmstat": {"pgfault": 1234, "pgmajfault": 56, "nr_tlb_remote_flush": 40 if luf else 400},
        "counters": {
            "irq_call": [n + 5 for n in per_cpu],
            "irq_resched": [1, 2, 3, 4],
            "dtlb_loads": [10**9] * CPUS,
        },
        "accounted": {"frame": [200, 200], "PTE": [77, 77], "message": [40, 40], "ack": [40, 40]},
        "token_ns": [[900_000_000, 971_000_000]],
        "series": Series(t_ns=[0, 10**9], free_mib=[[42.0, 1.9], [96.0, 2.4]]),
        "host_seconds": 4.0 if luf else 19.3,
        "startup_seconds": 1.5,
        "machine": "xeon6430-cxl",
        "workload": "llama3x15",
        "tokens": 4,
        "scale": 1024.0,
        "seed": 1,
        "leases": 2,
        "machine_text": "4 CPUs, DRAM 42 GiB + CXL 96 GiB, no swap, tiering on",
        "scale_text": "scale 1/1024: 42 MiB + 96 MiB",
        "workload_text": "3 x 70 GiB model, 15 threads each, 4 tokens",
        "engine_text": "engine from cache",
        "node_names": ["DRAM", "CXL"],
    }
    return Result(**(figures | changes))


def comparison(*runs: Result) -> Comparison:
    """Return a comparison with a fixed host and folder."""
    return compare(
        runs or (run("linux"), run("luf")),
        host={"cores": 2},
        folder="runs/0007-compare",
        command=["luf", "compare"],
    )


REUSE = {
    "kind": "reuse",
    "cpu": 3,
    "t_ns": 1_204_700,
    "access": "load",
    "address": 0x7F3A_0004_2000,
    "expected": "file model1, page 66",
    "found": "anon(mm 2, page 12)",
    "frame": 3141,
    "filled_ns": 981_200,
    "however": "cpu3 did not flush this page after that unmap.",
    "again": "luf run none --seed 1 --leases 1",
    "events": [
        {
            "place": 70,
            "t_ns": 1_190_000,
            "actor": "cpu7",
            "what": "unmap page 66 of model1 in shrink_folio_list",
        },
        {"kind": "gap", "what": "(2 more events)"},
        {
            "place": 99,
            "t_ns": 1_102_300,
            "actor": "cpu9",
            "what": "take frame 3141 for anon(mm 2, page 12) in rmqueue",
        },
    ],
}


class Experiment:
    """Stands in for the emulation of experiments: remembers how it was called, answers with fixed runs, or
    raises `error`.
    """

    def __init__(self, error: BaseException | None = None, **changes):
        self.calls: list[dict] = []
        self.error = error
        self.changes = changes

    def __call__(self, experiment, progress):
        one = {field.name: getattr(experiment, field.name) for field in fields(experiment)}
        self.calls.append(one | {"design": experiment.design.name})
        if self.error:
            raise self.error
        progress.update(1, experiment.tokens, free_mib=[1.9, 2.4], ipis=10)
        machine = experiment.machine
        return run(
            experiment.design.name,
            machine=machine.name,
            machine_text=machine.summary(),
            scale_text=machine.scaled_summary(),
            overrides=machine.overrides,
            workload=getattr(experiment.workload, "name", experiment.workload),
            scale=machine.scale,
            memory_text=experiment.memory_text,
            tokens=experiment.tokens,
            seed=experiment.seed,
            leases=experiment.leases,
            check=experiment.check,
            **self.changes,
        )
