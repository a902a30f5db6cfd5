"""`python -m benchmarks [NAME ...] [--quick] [--json FILE]`: run all benchmarks, or those named, and print a
table of each.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import platform
import re
import sys
import time
from typing import Any

import benchmarks


def modules() -> dict[str, Any]:
    """Find the modules of this folder that have a `run`."""
    names = [info.name for info in pkgutil.iter_modules(benchmarks.__path__) if info.name != "__main__"]
    loaded = {name: importlib.import_module(f"benchmarks.{name}") for name in names}
    return {name: module for name, module in loaded.items() if hasattr(module, "run")}


def table(rows: list[dict[str, Any]]) -> str:
    """Lay rows of different keys out in columns, each key once, in the order in which they come up."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[_cell(row.get(column, "")) for column in columns] for row in rows]
    widths = [max(len(column), *(len(line[i]) for line in cells)) for i, column in enumerate(columns)]
    lines = [columns, *cells]
    return "\n".join(
        "  ".join(_aligned(cell, width) for cell, width in zip(line, widths)).rstrip() for line in lines
    )


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)


def _aligned(cell: str, width: int) -> str:
    """Put numbers to the right."""
    return cell.rjust(width) if re.fullmatch(r"-?[\d.,e-]*", cell) else cell.ljust(width)


def main() -> int:
    """Run, print, and write JSON if asked to."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure the emulator itself on this host."
    )
    found = modules()
    parser.add_argument(
        "names",
        nargs="*",
        choices=[[], *found],
        metavar="NAME",
        help=f"one or more of {', '.join(found)} (default: all)",
    )
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs: to see that they work")
    parser.add_argument("--json", metavar="FILE", help="write the rows of all benchmarks there")
    options = parser.parse_args()
    cores, load = len(os.sched_getaffinity(0)), round(os.getloadavg()[0], 1)
    host = {
        "machine": platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "cores": cores,
        "load": load,
    }
    print(
        f"host: {cores} cores, {host['machine']}, Linux {host['kernel']}, Python "
        f"{host['python']}, load {load} at the start"
    )
    results = {}
    for name in options.names or found:
        began = time.monotonic()
        results[name] = found[name].run(quick=options.quick)
        title = (found[name].__doc__ or "").partition("\n")[0]
        print(f"\n{name}: {title}  ({time.monotonic() - began:.0f} s)\n{table(results[name])}", flush=True)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"host": host, "quick": options.quick, "benchmarks": results}, file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
