"""One tidy row a run, for pandas, DuckDB, R or a spreadsheet: what was run, and every figure of it.

Columns: what the run was (design, machine, workload, seed, `set.KEY` for each changed key of the machine,
`design.KEY` and `workload.KEY` for parameters), whether it was clean, the figures of the screen, requests by
site (`flush_sites.kswapd`), and the counters of /proc/vmstat under their own names. A run without a column's
value has none there. `unit_of` names each column's unit; a Parquet file has it in the field's metadata. Left
out: what is counted by CPU or over time, which the JSON has.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from emulator.output_file import write_atomically
from inputs.text import clipped

Result: TypeAlias = Any  # that of emulator/result.py, which imports this
Row = dict[str, Any]
UNITS = {  # of what is no plain count
    "scale": "1/memory", "seed": "", "leases": "CPUs", "cpus": "CPUs",
    "tlb_shootdowns": "interrupts", "ipi_requests": "requests", "ipi_messages": "messages",
    "ipi_executed": "requests", "ipi_acked": "requests",
    "dtlb_load_misses": "misses", "dtlb_store_misses": "misses", "itlb_load_misses": "misses",
    "runtime_mean_ns": "virtual ns", "slice_ns": "virtual ns", "unmapped_ro": "pages", "unmapped_rw": "pages",
    "host_seconds": "s of the host", "startup_seconds": "s of the host",
}  # fmt: skip
NO_UNIT = ("result", "design", "machine", "workload", "unit", "check", "fingerprint", "schedule")
GROUPS = {"flush_sites.": "requests", "set.": "", "design.": "", "workload.": ""}


class TableError(ValueError):
    """A table that cannot be written: one sentence."""


def row(run: Result) -> Row:
    """Give a run as one row: plain values by column."""
    return about(run) | counted(run)


def about(run: Result) -> Row:
    """Give the columns that say what was run."""
    return {
        "design": run.design,
        **_named("design.", run.design_parameters),
        "machine": run.machine,
        **_named("set.", run.overrides),
        "workload": run.workload,
        **_named("workload.", run.workload_parameters),
        "tokens": run.tokens,
        "unit": run.unit,
        "scale": run.scale,
        "cpus": run.cpus,
        "leases": run.leases,
        "slice_ns": run.slice_ns,
        "seed": run.seed,
        "schedule": ":".join(str(value) for value in run.schedule.values()),
        "check": run.check,
        "strict_ipi": run.strict_ipi,
    }


def counted(run: Result) -> Row:
    """Give the columns that say what the run did."""
    return {
        "clean": run.clean,
        "stopped": run.stopped,
        "violations": len(run.violations),
        "exposures": run.exposures,
        "windows": run.windows,
        "tlb_shootdowns": run.tlb_shootdowns,
        "ipi_requests": run.ipi.requests,
        "ipi_messages": run.ipi.messages,
        "ipi_executed": run.ipi.executed,
        "ipi_acked": run.ipi.acked,
        "dtlb_load_misses": run.dtlb_load_misses,
        "dtlb_store_misses": run.dtlb_store_misses,
        "itlb_load_misses": run.itlb_load_misses,
        "runtime_mean_ns": run.runtime_mean_ns if run.runtime_ns else None,
        "unmapped_ro": run.unmap.ro,
        "unmapped_rw": run.unmap.rw,
        **_named("flush_sites.", run.flush_sites),
        **run.vmstat,
        "fingerprint": run.fingerprint,
        "host_seconds": run.host_seconds,
        "startup_seconds": run.startup_seconds,
    }


def rows(runs: Iterable[Result]) -> list[Row]:
    """Give runs as rows that all have the same columns, in the order in which they first come."""
    found = [row(run) for run in runs]
    columns = dict.fromkeys(_in_order(found))
    return [{column: one.get(column) for column in columns} for one in found]


def unit_of(column: str) -> str:
    """Name the unit of a column, "" if it has none."""
    for group, unit in GROUPS.items():
        if column.startswith(group):
            return unit
    return "" if column in NO_UNIT else UNITS.get(column, "count")


def to_frame(runs: Iterable[Result]) -> Any:
    """Give runs as a pandas DataFrame, one row each. Raises TableError if pandas is not installed."""
    return _needed("pandas").DataFrame(rows(runs))


def write_table(runs: Iterable[Result], file: str | Path, results: Sequence[str] = ()) -> None:
    """Write runs as .csv, .jsonl or .parquet, whole or not at all. `results` names the result of each, as the
    first column. Raises TableError, and OSError with the path.
    """
    path = Path(file)
    if path.suffix not in WRITERS:
        raise TableError(f"'table' must end in {', '.join(WRITERS)} (got {clipped(path.name)})")
    table = rows(runs)
    if results:
        table = [{"result": result} | one for result, one in zip(results, table, strict=True)]
    write_atomically(str(path), WRITERS[path.suffix](table))


def _named(group: str, values: Any) -> Row:
    plain = (str, int, float, bool, type(None))
    return {
        f"{group}{key}": value if isinstance(value, plain) else msgspec.json.encode(value).decode()
        for key, value in values.items()
    }


def _in_order(found: list[Row]) -> list[str]:
    """Give all columns: a later row's new ones stand behind those that they follow there."""
    columns: list[str] = []
    for one in found:
        at = 0
        for column in one:
            if column in columns:
                at = columns.index(column) + 1
            else:
                columns.insert(at, column)
                at += 1
    return columns


def _csv(table: list[Row]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(table[0]) if table else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue().encode()


def _jsonl(table: list[Row]) -> bytes:
    return b"".join(msgspec.json.encode(one) + b"\n" for one in table)


def _parquet(table: list[Row]) -> bytes:
    arrow = _needed("pyarrow")
    _needed("pyarrow.parquet")
    made = arrow.Table.from_pylist([_of_one_kind(table, one) for one in table])
    fields = [field.with_metadata({"unit": unit_of(field.name)}) for field in made.schema]
    out = io.BytesIO()
    arrow.parquet.write_table(made.cast(arrow.schema(fields)), out)
    return out.getvalue()


def _of_one_kind(table: list[Row], one: Row) -> Row:
    """Have values of a column that is a number here and a word there be words."""
    return {
        column: value if value is None or not _mixed(table, column) else str(value)
        for column, value in one.items()
    }


def _mixed(table: list[Row], column: str) -> bool:
    kinds = {type(one[column]) for one in table} - {type(None)}
    return len(kinds) > 1 and kinds != {int, float}


def _needed(library: str) -> Any:
    import importlib

    try:
        return importlib.import_module(library)
    except ImportError:
        name = library.partition(".")[0]
        raise TableError(f"{name} must be installed for this: pip install 'luf-emulator[tables]'") from None


WRITERS: dict[str, Callable[[list[Row]], bytes]] = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
