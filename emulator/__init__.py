"""Put a machine together, run it, judge it, report on it: the command line and the Python API.

Lives here: machine descriptions (`machine`, `machines/*.toml`, `watermarks`), building and running (`build`,
`experiment`, `supervisor`), judging (`judge/`), results (`result`, `snapshots`, `run_folder`), what they look
like (`report/`), what several runs say together (`repeats/`), stored ones beside each other (`beside/`), the
comparison with a real kernel (`golden/`) and the command `luf` (`cli`). May import every other room; no room
may import this one. The names below are loaded when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emulator.beside.sides import read_beside
    from emulator.beside.text import beside_text
    from emulator.experiment import Experiment, design_names, run_design
    from emulator.machine import Machine, load_machine, machine_names
    from emulator.repeats.result import Repeats, read_result, repeats
    from emulator.repeats.text import repeats_text
    from emulator.report.plot import draw
    from emulator.report.text import report_text
    from emulator.result import Comparison, Result, compare, read_comparison, to_json
    from emulator.snapshots import run_script

__all__ = [
    "Comparison", "Experiment", "Machine", "Repeats", "Result", "beside_text", "compare", "design_names",
    "draw", "load_machine", "machine_names", "read_beside", "read_comparison", "read_result", "repeats",
    "repeats_text", "report_text", "run_design", "run_script", "to_json",
]  # fmt: skip

_HOMES = {
    "beside.sides": ("read_beside",),
    "beside.text": ("beside_text",),
    "experiment": ("Experiment", "design_names", "run_design"),
    "machine": ("Machine", "load_machine", "machine_names"),
    "repeats.result": ("Repeats", "read_result", "repeats"),
    "repeats.text": ("repeats_text",),
    "report.plot": ("draw",),
    "report.text": ("report_text",),
    "snapshots": ("run_script",),
    "result": ("Comparison", "Result", "beside_text", "compare", "read_comparison", "to_json"),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"emulator.{home}"), name)
    raise AttributeError(f"'emulator' has no {name!r}; it has {', '.join(__all__)}")
