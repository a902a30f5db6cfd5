"""What the emulated CPUs execute: programs of page visits, their generators, and readers of recorded traces.

Lives here: the row format (`program`), the llama.cpp generator (`llama`), the replay of recorded traces (`trace`),
the figures that both are judged by (`statistics`), and the list of workloads by name (`catalogue`).
May not live here: anything that knows of page tables, TLBs, frames or time. Imports only numpy and the standard library.
"""

from workloads.catalogue import is_recorded, names, workload
from workloads.program import Process, Region, Section, Workload

__all__ = ["Process", "Region", "Section", "Workload", "is_recorded", "names", "workload"]
