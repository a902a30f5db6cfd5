"""Small machines whose CPUs do nothing but interrupt each other and count: for benchmarks and tests of the
hardware.
"""

from __future__ import annotations

from typing import Any

from cpus.atomics import fetch_add, host_ticks, load_acquire
from cpus.compiled import apart_entries, entry, kernel
from cpus.cpumask import __cpumask_set_cpu, cpumask_clear
from cpus.events import EVENT_RING
from cpus.install import install
from cpus.ipi import irq_handler, send_interrupts, serve_interrupts, wait_for_acks
from cpus.layout import Sizes
from cpus.lease import RUN, WAIT_IDLE, block, new_slice, offer_lease, random_next
from cpus.memory_map import MODULES
from cpus.segment import build_ram
from designs.memory_map import MACHINE

# parameters of a storm, in ram.series[0, ...]
# CPUs that shoot; shots of each; targets; page visits between shots; others compute
SHOOTERS, SHOTS, TARGETS, GAP, OTHERS = range(5)
VISIT_NS = 30  # virtual, and about what the loop below takes on the host


def small_ram(
    nr_cpus: int,
    *,
    leases: int = 2,
    controlled: bool = False,
    strict: bool = False,
    seed: int = 1,
    design_fields: dict[str, tuple[int, ...]] | None = None,
    **constants: int,
) -> Any:
    """Build the RAM of a machine with `nr_cpus` CPUs and next to no memory. Further words are constants of
    the layout.
    """
    sizes = Sizes(
        nr_cpus=nr_cpus, nr_nodes=1, nr_zones=1, nr_frames=64, nr_mms=2, nr_tasks=1, nr_vmas=1, nr_objects=1,
        nr_cache_slots=64, nr_logical=64, nr_rows=1, nr_sections=1, nr_chunks=1, tlb_entries=8,
        series_length=8,
    )  # fmt: skip
    usual = {"nr_leases": leases, "controlled": int(controlled), "strict_ipi": int(strict),
             "slice_ns": 500_000, "lock_spins": 64, "wait_bound_ms": 10_000}  # fmt: skip
    ram = build_ram(MACHINE, sizes, usual | constants, design_fields)
    for name, ns in (("send", 100), ("latency", 1000), ("handle", 500)):
        ram.set_constant(f"cost_ipi_{name}", ns)
    ram.run_random[0] = seed * 2 + 1
    ram.cpu_random[:] = [seed * 1000 + 2 * cpu + 1 for cpu in range(nr_cpus)]
    install(ram, [*apart_entries(MODULES), count_interrupt])
    return ram


def set_storm(
    ram: Any,
    *,
    shots: int,
    targets: int,
    gap: int = 4096,
    shooters: int | None = None,
    others_compute: bool = True,
) -> None:
    """Have the first `shooters` CPUs (default all) shoot at `targets` others, `shots` times; the other CPUs
    visit pages or are idle.
    """
    shooters = ram.nr_cpus if shooters is None else shooters
    ram.series[0, :5] = shooters, shots, targets, gap, others_compute
    ram.run_tasks_left[0] = shooters


def shots_done(ram: Any) -> bool:
    """Have all shooters finished?"""
    return int(ram.run_tasks_left[0]) == 0


@entry(irq_handler.text)
def count_interrupt(ram, cpu, sender):
    """Count the interrupt by what the sender's words say: not 1 if they were changed before the ack."""
    ram.irq_call[cpu] += ram.call_kind[sender]
    return 0


@kernel
def visit_pages(ram, cpu, visits):
    """Do the work of so many page visits: some 25 ns each, with the doorbell tested at every one and leases
    offered.
    """
    state = ram.cpu_random[cpu]
    for _ in range(visits):
        if ram.cpu_bell[cpu] > 0:
            serve_interrupts(ram, cpu)
        for _ in range(8):
            state = random_next(state)
        ram.cpu_visit_stamp[cpu] += state & 1
        ram.cpu_clock[cpu] += VISIT_NS
        if ram.cpu_clock[cpu] >= ram.cpu_slice_end[cpu]:
            offer_lease(ram, cpu)
    ram.page_visits[cpu] += visits


@kernel
def shoot(ram, cpu, targets, kind):
    """Interrupt the next `targets` CPUs and wait for their acks; returns host ticks."""
    began = host_ticks()
    cpumask_clear(ram.call_mask, cpu)
    for i in range(1, targets + 1):
        __cpumask_set_cpu((cpu + i) % ram.nr_cpus, ram.call_mask, cpu)
    ram.call_kind[cpu] = kind
    wait_for_acks(ram, cpu, send_interrupts(ram, cpu))
    ram.call_kind[cpu] = -1_000_000  # whoever still reads the request after its ack ruins the sum
    return host_ticks() - began


@kernel
def storm(ram, cpu):
    """Be a CPU: shoot and visit pages as `set_storm` says, then be idle. Ticks of each shot go to
    `ram.event[cpu]`.
    """
    new_slice(ram, cpu)
    shooters = ram.series[0, SHOOTERS]
    shots, targets, gap = ram.series[0, SHOTS], ram.series[0, TARGETS], ram.series[0, GAP]
    if cpu < shooters:
        for i in range(shots):
            visit_pages(ram, cpu, gap)
            ticks = shoot(ram, cpu, targets, 1)
            if i < EVENT_RING:
                ram.event[cpu, i] = ticks
        fetch_add(ram.run_tasks_left, 0, -1)
    while (
        shooters < ram.nr_cpus
        and ram.series[0, OTHERS]
        and load_acquire(ram.run_tasks_left, 0) > 0
        and ram.run_stop[0] == RUN
    ):
        visit_pages(ram, cpu, 64)
    while True:
        block(ram, cpu, WAIT_IDLE, 0)
    return 0
