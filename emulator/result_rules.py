"""What a result that was read may not say: figures that contradict each other, each in one sentence.

The types of `emulator/result.py` bound every figure by itself. What stands here holds of all versions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

from emulator.findings import DebugFinding
from inputs.text import clipped

# those of emulator/result.py, which imports this
Comparison: TypeAlias = Any
Result: TypeAlias = Any
ALIKE = ("machine", "overrides_text", "workload", "scale", "tokens", "cpus")  # in all runs of a comparison
COUNTS = ("records", "checks", "findings")
Broken = tuple[str, str, object]  # key, rule, value


def contradiction(comparison: Comparison) -> str:
    """Give the first rule that runs break, by themselves or together: key, rule and value; or nothing."""
    if wrong := of_runs(comparison.runs):
        return wrong
    names = [run.design for run in comparison.runs]
    if len(set(names)) < len(names):
        return f"'design' must be another one in each run (got {clipped(names)})"
    return unlike(comparison.runs)


def of_runs(runs: Iterable[Result]) -> str:
    """Give the first rule that a run breaks by itself; or nothing."""
    for i, run in enumerate(runs):
        for key, rule, got in _of_run(run):
            return f"'runs[{i}].{key}' must {rule} (got {clipped(got)})"
    return ""


def unlike(runs: Iterable[Result]) -> str:
    """Say in what runs differ that no comparison may differ in; nothing if they go together."""
    for name in ALIKE:
        values = {getattr(run, name) for run in runs}
        if len(values) > 1:
            got = ", ".join(str(value) or "none" for value in sorted(values))
            what = name.removesuffix("_text")
            return f"'{what}' must be the same in all runs of a comparison (got {got})"
    return ""


def _of_run(run: Result) -> Iterator[Broken]:
    per_cpu = run.tlb_shootdowns_per_cpu
    if sum(per_cpu) != run.tlb_shootdowns:
        yield "tlb_shootdowns", f"be the sum of those of all CPUs, {sum(per_cpu):,}", run.tlb_shootdowns
    for name, values in run.counters.items():
        if len(values) != run.cpus:
            yield f"counters.{name}", f"have a number for each of {run.cpus} CPUs", values
    if run.counters.get("irq_tlb", per_cpu) != per_cpu:
        yield "counters.irq_tlb", "be tlb_shootdowns_per_cpu", run.counters["irq_tlb"]
    if len(run.cpu_points) not in (0, run.cpus):
        yield "cpu_points", f"have a number for each of {run.cpus} CPUs, or none", run.cpu_points
    for name, pair in run.accounted.items():
        if pair[0] < 0:  # more, or fewer, may be found than there should be
            yield f"accounted.{name}[0]", "be at least 0", pair[0]
    for name in ("violations", "window_proofs", "debug_findings"):
        for i, one in enumerate(getattr(run, name)):
            if one.get("cpu", 0) >= run.cpus:
                yield f"{name}[{i}].cpu", f"be one of {run.cpus} CPUs", one["cpu"]
    findings = run.design_stats.get("findings", [])
    if not isinstance(findings, list) or not all(isinstance(one, str) for one in findings):
        yield "design_stats.findings", "be a list of sentences", findings
    yield from _of_series(run)
    yield from _of_timeline(run)
    yield from _of_debug(run)


def _of_series(run: Result) -> Iterator[Broken]:
    series = run.series
    for node, points in enumerate(series.free_mib):
        if len(points) != len(series.t_ns):
            yield f"series.free_mib[{node}]", f"have as many points as t_ns, {len(series.t_ns)}", len(points)
    if sorted(series.t_ns) != series.t_ns:
        yield "series.t_ns", "grow", series.t_ns
    if len(run.node_names) < len(series.free_mib):
        yield "node_names", f"name the {len(series.free_mib)} nodes of series.free_mib", run.node_names


def _of_timeline(run: Result) -> Iterator[Broken]:
    line = run.timeline
    lengths = {len(counts) for counts in line.sites.values()}
    if len(lengths) > 1 or 0 in lengths:
        yield "timeline.sites", "have as many pieces for each site, at least 1", sorted(lengths)
    if line.sites and not line.end_ns:
        yield "timeline.end_ns", "be above 0 where sites have pieces", line.end_ns
    if line.complete_from_ns > line.end_ns:
        yield "timeline.complete_from_ns", f"be at most end_ns, {line.end_ns}", line.complete_from_ns
    if line.rings_wrapped > run.cpus:
        yield "timeline.rings_wrapped", f"be at most the {run.cpus} CPUs", line.rings_wrapped


def _of_debug(run: Result) -> Iterator[Broken]:
    counts: dict[str, Any] = dict(run.debug_luf)
    if counts and set(counts) != set(COUNTS):
        yield "debug_luf", f"have {', '.join(COUNTS)}, or nothing", list(counts)
    elif len(run.debug_findings) > counts.get("findings", 0):
        yield (
            "debug_findings",
            f"be at most debug_luf.findings, {counts.get('findings', 0)}",
            len(run.debug_findings),
        )
    rules: dict[str, Callable[[DebugFinding], bool]] = {
        "lagging": lambda one: all(cpu < len(one["done"]) for cpu in one["lagging"]),
        "held": lambda one: one["record"] != "page" or {"held", "freed_by", "freed_ns", "key"} <= set(one),
        "record_of": lambda one: one["record"] == "page" or "record_of" in one,
        "mm": lambda one: "address" not in one or "mm" in one,
    }
    for i, finding in enumerate(run.debug_findings):
        for name, holds in rules.items():
            if not holds(finding):
                yield f"debug_findings[{i}].{name}", f"go with its record, {finding['record']!r}", finding
