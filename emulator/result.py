"""What a run found: `Result` of one design, `Comparison` of several on the same machine and workload.

Both are frozen, and go to and from JSON with a schema version. Counters that exist in Linux keep their Linux
names; times are in virtual ns unless the name says host.
"""

from __future__ import annotations

import importlib
import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypedDict, TypeVar

import msgspec
from msgspec import Meta, Struct, field

from cpus.abi.numbers import CPUS_MAX, LEASES_MAX
from emulator.findings import EXPOSED, DebugCounts, DebugFinding, Violation, Whole
from emulator.result_rules import contradiction, unlike
from inputs.checked import Amount, Line, Natural, converted
from inputs.decode import JSON_BYTES, json_value
from inputs.file import read_bytes, shown
from inputs.text import clipped, visible_value

SCHEMA = "luf-comparison/1"
FOREIGN = "this is not a result of luf"

Unit = Annotated[str, Meta(pattern=r"\A(token|round)\Z")]
Check = Annotated[str, Meta(pattern=r"\A(full|accesses|states|bounds|off)\Z")]


Read = TypeVar("Read")


class ResultError(ValueError):
    """A result file that cannot be read: one sentence."""


class Ipi(Struct, frozen=True, kw_only=True):
    """Shootdown IPIs: requests queued, messages sent (a busy target gets none), flush functions executed,
    acks received.
    """

    requests: Natural = 0
    messages: Natural = 0
    executed: Natural = 0
    acked: Natural = 0


class Unmapped(Struct, frozen=True, kw_only=True):
    """Pages unmapped by reclaim and migration, by the permission of their mappings."""

    ro: Natural = 0
    rw: Natural = 0


class Series(Struct, frozen=True, kw_only=True):
    """Free memory over virtual time: `free_mib[node][i]` at `t_ns[i]`."""

    t_ns: list[Natural] = []
    free_mib: list[list[Amount]] = []


class Timeline(Struct, frozen=True, kw_only=True):
    """Requests by site over virtual time, in equal pieces from 0 on: all that were made, so the sums are
    those of `flush_sites`.

    Results of a luf that counted them from event rings have no `piece_ns`, and may be incomplete.
    """

    end_ns: Natural = 0  # of the last program; kernel threads go on for a moment
    piece_ns: Natural = 0
    sites: dict[str, list[Natural]] = {}
    rings_wrapped: Natural = 0  # CPUs whose ring lost its oldest events
    complete_from_ns: Natural = 0  # nothing is missing from here on

    def pieces(self, site: str) -> list[tuple[float, int]]:
        """Return the middle of each piece, in ns, and the requests of a site there."""
        counts = self.sites[site]
        length = self.piece_ns or self.end_ns / len(counts)
        return [((i + 0.5) * length, count) for i, count in enumerate(counts)]


class Result(Struct, frozen=True, kw_only=True):
    """One run of one design."""

    design: Line
    tlb_shootdowns: Natural
    tlb_shootdowns_per_cpu: Annotated[list[Natural], Meta(min_length=1, max_length=CPUS_MAX)]
    dtlb_load_misses: Natural
    dtlb_store_misses: Natural
    itlb_load_misses: Natural
    runtime_ns: list[Natural]  # of a process that has not ended: 0
    ipi: Ipi = field(default_factory=Ipi)
    unmap: Unmapped = field(default_factory=Unmapped)
    flush_sites: dict[str, Natural] = {}  # by the names of allocator/flush_sites.py, or a design's own
    vmstat: dict[str, Natural] = {}
    counters: dict[str, list[Natural]] = {}
    accounted: dict[str, Annotated[list[Whole], Meta(min_length=2, max_length=2)]] = {}
    violations: list[Violation] = []  # accesses judged wrong; if there was none, the first exposures
    exposures: Natural = 0  # times at which a CPU would still have used what was about to change
    windows: Natural = 0  # those that vanilla leaves open, too: a batch of reclaim was not flushed yet
    window_proofs: list[Violation] = []  # of the first of these
    # with --debug-luf: records made, frames looked at, findings (debug_luf.py)
    debug_luf: DebugCounts = {}
    debug_findings: list[DebugFinding] = []  # the first of these findings
    design_stats: dict[str, Any] = {}  # what the design itself says of the run (Design.statistics)
    exercised: dict[str, Natural] = {}  # rare branches -> how often they were taken (exercised.py)
    relies_on: list[str] = []  # those of them that the design's safety depends on
    token_ns: list[list[Natural]] = []  # of the evaluations that have ended
    series: Series = field(default_factory=Series)
    timeline: Timeline = field(default_factory=Timeline)
    # of a run with scheduling points (schedule.py): which, and what it came to
    schedule: dict[str, str | int] = {}
    switches: list[tuple[Natural, Natural, Natural]] = []  # CPU, its points, CPU that ran then
    switches_lost: Natural = 0  # that were not kept
    switch_places: list[str] = []  # of a short list: where the CPU was
    rule_findings: list[str] = []  # with the schedule's `rules`: what broke the kernel's own
    points: Natural = 0  # passed by all CPUs; hand-overs that they made themselves count as one
    cpu_points: list[Natural] = []  # and by each
    # of all events, counters, clocks and the schedule: equal for two controlled runs of one seed
    fingerprint: str = ""
    host_seconds: Amount = 0.0
    startup_seconds: Amount = 0.0
    machine: str = ""
    workload: str = ""
    tokens: Natural = 0
    unit: Unit = "token"  # what `tokens` counts: those of llama.cpp, or "round" of another generated one
    scale: Annotated[float, Meta(ge=1, le=1e19)] = 1.0
    seed: Natural = 0
    leases: Annotated[int, Meta(ge=0, le=LEASES_MAX)] = 0
    slice_ns: Natural = 0  # how far a CPU ran before others that were behind went first; 0: not noted
    check: Check = "full"
    strict_ipi: bool = False
    overrides: dict[str, Any] = {}  # what was changed of the machine (--set), as given
    design_parameters: dict[str, str] = {}  # all that the design has, those that were not given too
    workload_parameters: dict[str, int] = {}  # as given
    machine_text: str = ""
    scale_text: str = ""
    memory_text: str = ""  # with --memory: how much, and of what
    workload_text: str = ""
    order_text: str = ""  # why its figures hang on how it was emulated; nothing if they do not
    engine_text: str = ""
    node_names: list[str] = []

    def to_frame(self) -> Any:
        """Give the run as a pandas DataFrame of one row (repeats/table.py). Raises ValueError where pandas is
        not installed.
        """
        from emulator.repeats.table import to_frame

        return to_frame([self])

    def _repr_html_(self) -> str:
        """Show it in a notebook (page/small.py)."""
        return notebook_html(self)

    @property
    def cpus(self) -> int:
        return len(self.tlb_shootdowns_per_cpu)

    @property
    def runtime_mean_ns(self) -> float:
        """Mean virtual runtime of the workload's processes; 0 if none ended."""
        return sum(self.runtime_ns) / len(self.runtime_ns) if self.runtime_ns else 0.0

    @property
    def stopped(self) -> bool:
        """Was it ended by a violation before its workload was? Its counts are those of a part, and it has no
        runtime.
        """
        return bool(self.violations) and not self.accounted

    @property
    def accessed_wrongly(self) -> bool:
        """Was an access judged wrong, and not only states in which one could have been?"""
        return any(violation.get("kind") != EXPOSED for violation in self.violations)

    @property
    def overrides_text(self) -> str:
        """What was changed of the machine, as --set takes it: `sysctl.numa_balancing=0, tlb.pcid=false`."""
        values = {
            key: value if isinstance(value, str) else msgspec.json.encode(value).decode()
            for key, value in self.overrides.items()
        }
        return ", ".join(f"{key}={value}" for key, value in values.items())

    @property
    def length_text(self) -> str:
        """How long the workload was: `1 token`, `8 rounds`, nothing if it has no such measure."""
        return f"{self.tokens} {self.unit}{'s' * (self.tokens != 1)}" if self.tokens else ""

    @property
    def broadcasts(self) -> int:
        """Requests that the hardware carried out by itself (invlpgb): executed, but no interrupt and so no
        shootdown.
        """
        return max(0, self.ipi.executed - self.tlb_shootdowns)

    @property
    def unmapped_read_only(self) -> float | None:
        """Share of unmapped pages whose mappings were read-only; None if nothing was unmapped."""
        total = self.unmap.ro + self.unmap.rw
        return self.unmap.ro / total if total else None

    @property
    def unaccounted(self) -> dict[str, list[int]]:
        """The conservation checks whose two sides differ: name -> [expected, found]."""
        return {name: pair for name, pair in self.accounted.items() if pair[0] != pair[1]}

    @property
    def design_findings(self) -> list[str]:
        """What the design itself found wrong, in its statistics."""
        return list(self.design_stats.get("findings", ()))

    @property
    def blamed_by(self) -> dict[str, str]:
        """Everybody who found fault with the run -> what; empty if it is clean."""
        found = {
            "the oracle": _plural(len(self.violations), "violation")
            if self.accessed_wrongly
            else _plural(self.exposures, "exposure"),
            "the audit": ", ".join(self.unaccounted),
            "the rules of the kernel": _plural(len(self.rule_findings), "finding"),
            "LUF's debug feature": _plural(self.debug_luf.get("findings", 0), "finding"),
            "the design itself": _plural(len(self.design_findings), "finding"),
        }
        return {who: what for who, what in found.items() if what}

    @property
    def clean(self) -> bool:
        """True if no access was judged wrong, every frame, PTE, message and ack is accounted for, and neither
        LUF's debug feature nor the design itself found anything.
        """
        return not self.blamed_by


def notebook_html(found: Struct) -> str:
    """Give a result as notebooks show it. What shows results is made of them, so it is found by name, when
    somebody asks.
    """
    html: str = importlib.import_module("emulator.page.small").small_html(found)
    return html


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count > 1)}" if count else ""


class Host(TypedDict, total=False):
    """The host that carried a run."""

    kernel: str
    machine: str
    cores: Natural
    memory_mib: Natural


class Comparison(Struct, frozen=True, kw_only=True):
    """Several designs on the same machine and workload; the first run is the one that others are compared
    with. Screens say so where their seeds are not the same.
    """

    runs: Annotated[list[Result], Meta(min_length=1)]
    schema: str = SCHEMA
    command: list[str] = []
    versions: dict[str, str] = {}
    host: Host = {}
    folder: str = ""
    missing: dict[str, str] = {}  # designs that were asked for and have no result -> why

    def _repr_html_(self) -> str:
        """Show it in a notebook (page/small.py)."""
        return notebook_html(self)

    @property
    def clean(self) -> bool:
        return all(run.clean for run in self.runs) and not self.missing

    def run(self, design: str) -> Result:
        """Return the run of that design; raises KeyError if it is not among them."""
        for one in self.runs:
            if one.design == design:
                return one
        raise KeyError(f"'design' must be one of {', '.join(r.design for r in self.runs)} (got {design!r})")


def compare(runs: Iterable[Result], **about: Any) -> Comparison:
    """Return a Comparison of `runs`, one of each design; raises ValueError if they are none, or did not run
    the same workload on the same machine. Several runs of a design are `repeats`.

    Designs of one name (two files may call theirs alike) are numbered, so that each has a column and a
    folder: eight, eight-2.
    """
    listed = [visible_run(run) for run in runs]
    if not listed:
        raise ValueError("'runs' must have at least one run (got 0)")
    if difference := unlike(listed):
        raise ValueError(difference)
    names = unique([run.design for run in listed])
    numbered = [
        run if run.design == name else msgspec.structs.replace(run, design=name)
        for run, name in zip(listed, names)
    ]
    return Comparison(runs=numbered, **visible_value(about))


def visible_run(run: Result) -> Result:
    """Return a run with its text made visible: names of a user's files and processes, what a design says."""
    values = {name: getattr(run, name) for name in run.__struct_fields__}
    return msgspec.structs.replace(run, **visible_value(values))


def unique(names: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """Give `names`, none of them twice or among `taken`: the later one of two that are equal gets a number,
    eight-2.
    """
    listed = list(names)
    used, found = set(taken), list[str]()
    for i, name in enumerate(listed):
        later = set(listed[i + 1 :])  # a number must not take the name of a design that really bears it
        numbered = (f"{name}-{number}" for number in itertools.count(2))
        found.append(name if name not in used else next(one for one in numbered if one not in used | later))
        used.add(found[-1])
    return found


def to_json(value: Struct) -> str:
    """Return indented JSON, keys in the order of declaration, with text that `from_json` takes."""
    table = visible_value(msgspec.to_builtins(value))
    return msgspec.json.format(msgspec.json.encode(table), indent=1).decode() + "\n"


def from_json(text: str | bytes) -> Comparison:
    """Return the Comparison that `to_json` wrote; raises ResultError if it is none, or of another schema."""
    return comparison_of(table_of(text, [SCHEMA]))


def table_of(text: str | bytes, schemas: Sequence[str]) -> dict[str, Any]:
    """Return the table of a result's JSON, whose schema is one of these. Raises ResultError."""
    head = json_value(text, FOREIGN, ResultError)
    if not isinstance(head, dict):
        raise ResultError(f"{FOREIGN}: it must be a table (got {clipped(head)})")
    if head.get("schema") not in schemas:
        raise ResultError(
            f"'schema' must be {' or '.join(map(repr, schemas))} (got {clipped(head.get('schema'))}): the "
            "file was written by another version"
        )
    return head


def comparison_of(table: dict[str, Any]) -> Comparison:
    """Return a Comparison that does not contradict itself. Raises ResultError."""
    comparison = converted(table, Comparison, FOREIGN, ResultError)
    if mistake := contradiction(comparison):
        raise ResultError(f"this result contradicts itself: {mistake}")
    return comparison


def read_comparison(path: str | Path) -> Comparison:
    """Read a comparison from its JSON file or its run folder. Raises ResultError, FileError."""
    return read_with(path, from_json)


def read_with(path: str | Path, read: Callable[[bytes], Read]) -> Read:
    """Read a result's JSON file, or that of a run folder, with `read`, whose refusals then name the file."""
    place = Path(path)
    file = place / "result.json" if os.path.isdir(place) else place
    if file != place and not os.path.lexists(file):
        raise ResultError(
            f"{shown(path)}: must be a run's folder, such as runs/latest (got one without result.json)"
        )
    data = read_bytes(file, most=JSON_BYTES, refusal=ResultError)
    try:
        return read(data)
    except ResultError as error:
        raise ResultError(f"{shown(path)}: {error}") from error
