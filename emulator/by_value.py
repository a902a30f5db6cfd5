"""An experiment as plain data, to be pickled and run in another process, or on another host that has luf.

    sent = pickle.dumps(experiment_of("my.py:Mine", machine, "script.toml", tokens=1, leases=1))
    result = pickle.loads(sent).run()          # in a process that has neither file

A design from a user's file goes as the text of that file, a user's workload as its rows; what ships with luf
goes by name. Left out: modules that a user's file imports from its own folder, and designs that are objects.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from designs import shelf
from emulator.experiment import run_design, workload_of
from emulator.machine import Machine
from emulator.result import Result
from workloads import Workload, names


@dataclass(frozen=True, slots=True)
class Experiment:
    """One run: `design` names one of the shelf, or, with `source`, FILE.py:CLASS of a file of that text."""

    design: str
    machine: Machine
    workload: str | Workload
    options: tuple[tuple[str, Any], ...] = ()  # of run_design
    source: str = ""

    def run(self) -> Result:
        """Run it here; raises what run_design does."""
        options = dict(self.options)
        if not self.source:
            return run_design(self.design, self.machine, self.workload, **options)
        with tempfile.TemporaryDirectory(prefix="luf-design-") as folder:
            (Path(folder) / self.design.split(":")[0]).write_text(self.source, encoding="utf-8")
            return run_design(f"{folder}/{self.design}", self.machine, self.workload, **options)


def experiment_of(
    design: str, machine: Machine, workload: str | Workload = "llama3x15", **options: Any
) -> Experiment:
    """Describe a run by value; takes what `run_design` takes, but for objects of designs and what is called
    while it runs (`progress`, `observe`). Raises ValueError for a design or a workload that is not there.
    """
    if not isinstance(design, str):
        raise ValueError(f"'design' must be a name or FILE.py:CLASS (got {design!r})")
    for name in ("progress", "observe"):
        if name in options:
            raise ValueError(
                f"'{name}' must be left to run_design: it cannot be sent (got {options[name]!r})"
            )
    shelf.design(design)  # it is there, and its parameters are right
    source = ""
    if (at := design.find(".py:")) >= 0:
        file = Path(design[: at + 3])
        source, design = file.read_text(encoding="utf-8"), file.name + design[at + 3 :]
    if isinstance(workload, str) and workload.partition(":")[0] not in names():
        seed, tokens = options.get("seed", 1), options.get("tokens", 2)
        workload = workload_of(workload, machine.scale, tokens, seed, machine)
    return Experiment(design, machine, workload, tuple(options.items()), source)
