"""The machine of a litmus test: `litmus.toml`, changed as the test says.

Memory is given in pages that programs can have. A node is one zone, and half of it is the kernel's, as a node
must have a certain size (emulator/machine.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cpus.abi.numbers import PAGES_PER_MIB
from emulator.machine import MEMORY_MIB_MIN, Machine, MachineError, load_machine
from workloads.litmus.sheet import LitmusError
from workloads.litmus.test import Litmus

BASE = "litmus"
LATENCY_NS, SLOWER_NS = 110, 140  # of the first node, and what each slower one adds
NEAR, FAR = 10, 20  # distances
PAGES_MIN, PAGES_MAX = 512, 2**20


def machine_of(
    litmus: Litmus,
    *,
    scale: float | None = None,
    cpus: int | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Machine:
    """Load it, with what a command line changes. Raises LitmusError with file, key, rule and value."""
    changes = dict(litmus.machine["overrides"])
    pages = litmus.machine["memory"]
    for size in pages:
        if not PAGES_MIN <= size <= PAGES_MAX:
            rule = f"'memory' must be from {PAGES_MIN} to {PAGES_MAX:,} pages a node"
            raise LitmusError(f"{litmus.file}: {rule} (got {size})")
    if pages:
        changes |= nodes_of(pages, litmus.machine["sockets"])
    try:
        return load_machine(
            BASE, scale=scale, cpus=cpus or litmus.machine["cpus"], overrides=changes | dict(overrides or {})
        )
    except MachineError as error:
        raise LitmusError(f"{litmus.file}: {error}") from None


def nodes_of(pages: list[int], sockets: bool) -> Mapping[str, Any]:
    """Give the nodes with so many pages, and their distances."""
    nodes = [
        {
            "name": f"node{number}",
            "memory_mib": max(MEMORY_MIB_MIN, 2 * size / PAGES_PER_MIB),
            "cpus": sockets or number == 0,
            "read_latency_ns": LATENCY_NS + number * SLOWER_NS * (not sockets),
            "zones": [{"name": "Normal", "managed_pages": 2 * size, "kernel_pages": size}],
        }
        for number, size in enumerate(pages)
    ]
    distances = [[NEAR if a == b else FAR for b in range(len(pages))] for a in range(len(pages))]
    return {"nodes": nodes, "distances": distances}
