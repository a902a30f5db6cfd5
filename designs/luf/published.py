"""A zone's generation is flushed: say so, or sleep until somebody has said it."""

from cpus.atomics import address, exchange, load_acquire
from cpus.compiled import kernel
from cpus.ipi import serve_interrupts
from cpus.layout import Sizes
from cpus.lease import WAIT_WORD, begin_wait, cancel_wait, finish_wait, wake_all_waiting_for
from designs.measure import WAIT_NS, WAITS


def published_fields(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Shared fields."""
    # who publishes a generation, before zone_key_done: when, and how long its flush took
    return {"published_ns": (sizes.nr_zones,), "published_took": (sizes.nr_zones,)}


@kernel
def publish_generation(ram, state, cpu, zone, generation, began):
    """Say that a zone's pages up to a generation are flushed, and wake who waits for that. `began`: when the
    flush began.
    """
    state.published_ns[zone] = ram.cpu_clock[cpu]
    state.published_took[zone] = ram.cpu_clock[cpu] - began
    exchange(ram.zone_key_done, zone, generation)  # a full barrier before the look at who waits
    wake_all_waiting_for(ram, WAIT_WORD, address(ram.zone_key_done, zone), ram.cpu_clock[cpu])


@kernel
def charge_wait(ram, state, cpu, ended_ns, took_ns):
    """Count a wait for another CPU's flush. Clocks of CPUs are apart by up to a slice, so it is as long as
    that flush took at most.
    """
    waited = max(min(ended_ns - ram.cpu_clock[cpu], took_ns), 0)
    ram.cpu_clock[cpu] += waited
    state.stat[cpu, WAIT_NS] += waited


@kernel
def wait_for_generation(ram, state, cpu, zone, generation):
    """Sleep until a zone's generation has been flushed by somebody else, serving interrupts."""
    if load_acquire(ram.zone_key_done, zone) >= generation:
        return
    state.stat[cpu, WAITS] += 1
    while load_acquire(ram.zone_key_done, zone) < generation:
        if ram.cpu_bell[cpu] > 0:
            serve_interrupts(ram, cpu)
        if begin_wait(ram, cpu, WAIT_WORD, address(ram.zone_key_done, zone)):
            if load_acquire(ram.zone_key_done, zone) >= generation:
                cancel_wait(ram, cpu)
            else:
                finish_wait(ram, cpu)
    charge_wait(ram, state, cpu, state.published_ns[zone], state.published_took[zone])
