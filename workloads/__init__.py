"""What the emulated CPUs execute: programs of page visits and system calls, their generators, and readers of
recorded traces.

Lives here: the row format (`rows`) and its `rules`, scripts (`script`, `calls`, `script_toml`) and those that
a real kernel was recorded with (`scenarios`), the llama.cpp generator (`llama`), the replay of recorded
traces (`trace`), and the list of workloads by name (`catalogue`).
May not live here: anything that knows of page tables, TLBs, frames or time. Of the other
rooms it may import `cpus.abi` alone: the numbers that programs and the kernel both know.
"""

from workloads.catalogue import is_recorded, names, workload
from workloads.rows import Process, Region, Section, Workload
from workloads.rules.whole import validate
from workloads.script import Script

__all__ = [
    "Process",
    "Region",
    "Script",
    "Section",
    "Workload",
    "is_recorded",
    "names",
    "validate",
    "workload",
]
