"""Play the golden record's pressure runs on the emulator, at the recorded guest's own size, and say what is
compared and why.

    runs = pressure_runs(data)                       # tags of what can be played, in the record's order
    emulated = emulate_pressure(entry)               # entry: one element of data["pressure"]
    for row in PRESSURE_ROWS: row.value(entry), row.value(emulated), row.kind

`emulate_pressure` gives a dict of the record's own structure, as far as it can: tag, T, workload,
    mb_per_proc, settings          as in the entry sweeps, page_touches, sweeps_completed           as run
    here; runs that the record stopped by time are run shorter counters            {Linux name: delta over the
    measured phase} derived             {name: ratio}, names and formulas of the record tlb_flush
    {"send_ipi_by_site": {actor/why: broadcasts}, "by_reason_pages": {reason/pages: events}} send_ipi_by_site,
    tlb_flush_by_reason_pages      the same two, at the top tlb_per_cpu         TLB row of /proc/interrupts,
    per CPU clean               no violation, and everything conserved findings            what was not, as
    text seconds             virtual time of the measured phase host_seconds        what the run took here
    What hangs on time cannot agree everywhere: the guest's disk was a file on an overloaded host, and how
    long its CPUs waited for it, and were idle (lazy, and so spared the interrupt) meanwhile, is not known.
    With one CPU (f1_*) it was idle half of the time; here it is not. Left out: compaction (nothing here asks
    for high orders), the record's series and gauges.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from allocator.flush_sites import REASONS, SITES
from allocator.tlb_flush import TRACE_PAGES
from cpus.abi.numbers import PAGES_PER_MIB
from cpus.declare import VMSTAT
from emulator.experiment import run_design
from emulator.machine import Machine, load_machine
from emulator.order import LONG_SLICE_NS
from workloads.sweep import AFTER, ANON_RW, BEFORE, FILE_RO, sweep

USUAL_MACHINE, MACHINES = "guest-8cpu-tcg", {"pt": "guest-8cpu-tcg-large"}  # by environment
PROCESSES = 3
# of a thread that shares its CPU, that has its own: they fill about the record's 25 s, virtually
ANON_SWEEPS, ANON_MIB = (200, 1400), 150
EVENTS_TO_COMPARE = 100  # a ratio of fewer says nothing


def pressure_runs(data: Mapping[str, Any]) -> list[str]:
    """Return the tags of the record's pressure runs that can be played: sweeps of files, and of anonymous
    memory.
    """
    return [str(run["tag"]) for run in data["pressure"] if run["workload"] in (FILE_RO, ANON_RW)]


def _sweeps(run: Mapping[str, Any]) -> int:
    """Return how often each thread sweeps: as recorded, or, as anonymous runs were stopped by time, for about
    as long.
    """
    if run["workload"] != ANON_RW:
        return int(run["sweeps"])
    return max(1, ANON_SWEEPS[run["T"] >= PROCESSES] * ANON_MIB // int(run["mb_per_proc"]))


def pressure_machine(run: Mapping[str, Any], changes: Mapping[str, Any] | None = None) -> Machine:
    """Return the recorded guest with the run's settings, and `changes` for an experiment, dotted keys to
    values.

    The highest `numa_balancing` that the machine knows is tiering, 2.
    """
    settings = run["settings"]
    overrides = {
        "sysctl.numa_balancing": int(settings["numa_balancing"]),
        "sysctl.demotion_enabled": settings["demotion_enabled"] == "true",
    }
    return load_machine(
        MACHINES.get(str(run["env"]), USUAL_MACHINE), scale=1, overrides=overrides | dict(changes or {})
    )


def emulate_pressure(
    run: Mapping[str, Any],
    *,
    leases: int = 2,
    seed: int = 1,
    progress: Any = None,
    changes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Run one entry of the record's `pressure` list, checked in full; returns the same structure (module
    docstring).
    """
    cpus, mib = int(run["T"]), int(run["mb_per_proc"])
    sweeps = _sweeps(run)
    work = sweep(run["workload"], cpus=cpus, processes=PROCESSES, mib=mib, sweeps=sweeps)
    found: dict[str, Any] = {}
    machine = pressure_machine(run, changes)
    result = run_design(
        "linux",
        machine,
        work,
        leases=leases,
        seed=seed,
        slice_ns=LONG_SLICE_NS,  # XXX: with 5 us 87 of 102 rows are in their bands (one seed)
        progress=progress,
        observe=lambda ram: found.update(_deltas(ram)),
    )
    faults = [f"{name}: {a} and {b}" for name, (a, b) in result.accounted.items() if a != b]
    faults += [str(violation.get("kind")) for violation in result.violations]
    threads = max(PROCESSES, cpus)
    touches = threads * sweeps * mib * PAGES_PER_MIB
    sites = found["send_ipi_by_site"]
    return found | {
        **{name: run[name] for name in ("tag", "T", "workload", "mb_per_proc", "settings")},
        "sweeps": sweeps,
        "sweeps_completed": threads * sweeps,
        "page_touches": touches,
        "tlb_flush": {"send_ipi_by_site": sites, "by_reason_pages": found["tlb_flush_by_reason_pages"]},
        "derived": derived(found["counters"], sites, touches),
        "clean": bool(result.accounted) and not faults,
        "findings": faults,
        "host_seconds": result.host_seconds,
    }


def _deltas(ram: Any) -> dict[str, Any]:
    """Collect what happened between the two snapshots."""
    delta = ram.snapshot[AFTER] - ram.snapshot[BEFORE]
    counted = list(zip(ram.layout.counters, delta.tolist(), strict=True))
    counters = {counter.name: count for counter, count in counted if count and counter.group == VMSTAT}
    counters["tlb_ipi"] = next(count for counter, count in counted if counter.name == "irq_tlb")
    counters["allocstall_movable"] = counters.pop("allocstall_normal", 0)
    flushes = ram.snapshot_tlb[AFTER] - ram.snapshot_tlb[BEFORE]
    sites = ram.snapshot_site[AFTER] - ram.snapshot_site[BEFORE]
    pages = [*(str(n) for n in range(TRACE_PAGES - 1)), "all"]
    recorded: dict[str, int] = {}
    for site, count in zip(SITES.values(), sites.tolist(), strict=True):
        if count:
            recorded[site.recorded] = recorded.get(site.recorded, 0) + count
    return {
        "counters": counters,
        "send_ipi_by_site": recorded,
        "tlb_flush_by_reason_pages": {
            f"{reason}/{pages[j]}": int(flushes[i * TRACE_PAGES + j])
            for i, reason in REASONS.items()
            for j in range(TRACE_PAGES)
            if flushes[i * TRACE_PAGES + j]
        },
        "tlb_per_cpu": (ram.snapshot_irq[AFTER] - ram.snapshot_irq[BEFORE]).tolist(),
        "seconds": float(ram.snapshot_ns[AFTER] - ram.snapshot_ns[BEFORE]) / 1e9,
    }


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def derived(counters: Mapping[str, int], sites: Mapping[str, int], touches: int) -> dict[str, float | None]:
    """Compute the record's ratios from counters and broadcasts by site."""
    get = lambda name: counters.get(name, 0)  # noqa: E731 - a counter that stayed 0 is not in the record
    steal_kswapd, steal_direct = get("pgsteal_kswapd"), get("pgsteal_direct")
    demote_kswapd, demote_direct = get("pgdemote_kswapd"), get("pgdemote_direct")
    stolen, demoted, broadcasts = (
        steal_kswapd + steal_direct,
        demote_kswapd + demote_direct,
        sum(sites.values()),
    )
    kswapd = sum(count for site, count in sites.items() if site.startswith("kswapd/"))
    return {
        "shootdown_broadcasts": broadcasts,
        "ipis_per_broadcast": _share(get("tlb_ipi"), broadcasts),
        "pages_stolen": stolen,
        "pages_stolen_without_demoted": stolen - demoted,
        "pages_demoted": demoted,
        "pages_promoted": get("pgpromote_success"),
        "ipis_per_stolen_page": _share(get("tlb_ipi"), stolen),
        "broadcasts_per_stolen_page": _share(broadcasts, stolen),
        "ipis_per_migrated_page": _share(get("tlb_ipi"), get("pgmigrate_success")),
        "ipis_per_1000_touches": _share(1000 * get("tlb_ipi"), touches),
        "kswapd_share_of_steal": _share(steal_kswapd, stolen),
        "kswapd_share_of_demotion": _share(demote_kswapd, demoted),
        "kswapd_share_of_broadcasts": _share(kswapd, broadcasts),
        "scan_efficiency": _share(stolen, get("pgscan_kswapd") + get("pgscan_direct")),
        "major_faults_per_1000_touches": _share(1000 * get("pgmajfault"), touches),
        "refaults_per_stolen_page": _share(get("workingset_refault_file"), stolen),
    }


# --- what is compared ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of a run, real or emulated: `value(entry)` is None where the run has no such figure, or too
    little of it to compare.

    `kind` "count" must agree within a factor of 1.25, "time" within 2. None on both sides agrees, None on one
    side does not.
    """

    name: str
    value: Callable[[Mapping[str, Any]], float | None]
    kind: str
    why: str


def _of_derived(name: str) -> Callable[[Mapping[str, Any]], float | None]:
    return lambda run: run["derived"].get(name)


def _per_touch(name: str) -> Callable[[Mapping[str, Any]], float | None]:
    return lambda run: _share(1000 * run["counters"].get(name, 0), run["page_touches"])


def _broadcasts(run: Mapping[str, Any], why: str) -> int:
    sites = run["tlb_flush"]["send_ipi_by_site"]
    return sum(count for site, count in sites.items() if site.split("/")[1].startswith(why))


def _reclaimed_per_broadcast(run: Mapping[str, Any]) -> float | None:
    return _share(run["derived"]["pages_stolen_without_demoted"], _broadcasts(run, "reclaim"))


def _demoted_per_broadcast(run: Mapping[str, Any]) -> float | None:
    """The record's broadcasts were traced for a little longer than its counters; so were its migrations,
    which are taken here.
    """
    traced = run.get("migrations", {}).get("demotion", {}).get("succeeded", run["derived"]["pages_demoted"])
    enough = run["derived"]["pages_demoted"] >= EVENTS_TO_COMPARE
    return _share(traced, _broadcasts(run, "demotion")) if enough else None


def _share_of_broadcasts(why: str) -> Callable[[Mapping[str, Any]], float | None]:
    return lambda run: _share(_broadcasts(run, why), run["derived"]["shootdown_broadcasts"]) or None


def _ipis_per_broadcast(run: Mapping[str, Any]) -> float | None:
    return (
        run["derived"].get("ipis_per_broadcast")
        if run["derived"]["shootdown_broadcasts"] >= EVENTS_TO_COMPARE
        else None
    )


def _demoted_per_touch(run: Mapping[str, Any]) -> float | None:
    return _share(1000 * run["derived"]["pages_demoted"], run["page_touches"]) or None


def _promoted_per_second(run: Mapping[str, Any]) -> float | None:
    """Of anonymous memory: the record stopped these runs by time, after `secs`. (Pages of read-only files are
    never promoted.)
    """
    seconds = run.get("secs") or run.get("seconds")
    return (
        None
        if _swept(run) or not run["derived"]["pages_promoted"]
        else _share(run["derived"]["pages_promoted"], seconds or 0)
    )


def _swept(run: Mapping[str, Any]) -> bool:
    return bool(run["workload"] != ANON_RW)


def _of_files(
    value: Callable[[Mapping[str, Any]], float | None],
) -> Callable[[Mapping[str, Any]], float | None]:
    """Only for sweeps of files: anonymous memory of these sizes fits, so sweeps reclaim nothing."""
    return lambda run: value(run) if _swept(run) else None


PRESSURE_ROWS = (
    Row("pages per broadcast, reclaim", _of_files(_reclaimed_per_broadcast), "count",
        "a flush each time 31 freed pages are gathered and at the end of every list of 32"),
    Row("pages per broadcast, demotion", _demoted_per_broadcast, "count",
        "one flush for what of a list of 32 can be moved"),
    Row("IPIs per broadcast", _ipis_per_broadcast, "count",
        "how many CPUs run the processes whose pages go, and are not idle"),
    Row("faults per 1000 touches", _of_files(_per_touch("pgfault")), "count", "fault-around maps 16 pages"),
    Row("pages reclaimed per 1000 touches", _of_files(_per_touch("pgsteal_file")), "count",
        "each sweep brings every page in once"),
    Row("refaults per 1000 touches", _of_files(_per_touch("workingset_refault_file")), "count",
        "all that comes in was here before"),
    Row("share of reclaimed among scanned", _of_files(_of_derived("scan_efficiency")), "count",
        "a page that was used is kept once, and goes the second time"),
    Row("refaults per reclaimed page", _of_files(_of_derived("refaults_per_stolen_page")), "count",
        "the rest was demoted first"),
    Row("share of broadcasts, reclaim", _of_files(_share_of_broadcasts("reclaim")), "count", "by cause"),
    Row("share of broadcasts, demotion", _of_files(_share_of_broadcasts("demotion")), "count", "by cause"),
    Row("IPIs per reclaimed page", _of_files(_of_derived("ipis_per_stolen_page")), "time",
        "how many CPUs are busy, not asleep for the disk"),
    Row("kswapd's share of reclaim", _of_files(_of_derived("kswapd_share_of_steal")), "time",
        "how fast kswapd is beside the allocating CPUs"),
    Row("kswapd's share of broadcasts", _of_files(_of_derived("kswapd_share_of_broadcasts")), "time",
        "the same"),
    Row("pages demoted per 1000 touches", _of_files(_demoted_per_touch), "time",
        "whether the slow node has room at that moment"),
    Row("major faults per 1000 touches", _of_files(_of_derived("major_faults_per_1000_touches")), "time",
        "how often a thread comes before the disk"),
    Row("pages promoted per second", _promoted_per_second, "time",
        "scan periods and hot threshold are times"),
)  # fmt: skip
