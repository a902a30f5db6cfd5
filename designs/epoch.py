"""Epochs: a frame is given out again when every CPU has passed a quiescent point, at which it flushes its
TLB.

Source: read-copy-update (McKenney, Slingwine, PDCS 1998) and epoch-based reclamation (Fraser, 2004), with a
flush at that point.

Mechanism: unmapping read-only pages interrupts nobody. The frames go back with a stamp (held.py). A CPU
passes a quiescent point at its tick and at a context switch, where it flushes if it is behind and publishes
the stamp that it has reached; a CPU that idles or runs a kernel thread is quiescent all the time. A closed
generation of frames is released when all CPUs have reached its stamp. Interrupts are sent to the CPUs that
lag, and to no others, when a grace period has lasted longer than TIMEOUT_NS, when there is no other memory
left, and before something becomes visible that an old translation must not contradict.
Safety: no CPU that has published a stamp has a translation older than it, since it read the stamp before it
flushed; a CPU that is away looks at tlb_gen, raised before the stamp was drawn, when it comes back. A frame's
bytes do not change while it is held. Simplified: every CPU counts for every mm (RCU has no readers' masks
either); writable and dirty mappings go by vanilla's batch, and munmap and its kin stay synchronous: their
callers have been promised that the mapping is gone when they return.
"""

from cpus.atomics import fence, fetch_max, load_acquire, store_release
from cpus.compiled import kernel
from cpus.cpumask import __cpumask_set_cpu, cpumask_clear
from cpus.layout import Sizes
from designs.design import Design, hook
from designs.held import (
    FILE_CHANGED,
    HELD_HOOKS,
    TAKEN,
    TIMED_OUT,
    VISIBLE,
    advance_zones,
    ask_called,
    catch_up,
    defer_unmap,
    end_batch,
    held_fields,
    held_statistics,
    is_away,
    prepare_held,
    publish_taken,
    stamp_of_write_fault,
)
from designs.linux import linux_mapping_change, linux_unmap_flush
from designs.state import own_fields

TIMEOUT_NS = 8_000_000  # two ticks


def epoch_fields(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Shared fields: those of held frames, and how far each CPU is."""
    # the CPU writes, any reads: stamp up to which it has flushed
    return held_fields(sizes) | {"reached": (sizes.nr_cpus,)}


_EXAMPLE = Sizes(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)
epoch_state = own_fields("epoch", epoch_fields(_EXAMPLE))


@kernel
def look_at_all(ram, state):
    """Raise `safe` to what every CPU has reached that is not away."""
    stamp = load_acquire(state.stamp, 0)
    fence()  # the stamp before the look at who is away: pairs with switch_mm
    for other in range(ram.nr_cpus):
        if not is_away(ram, other):
            stamp = min(stamp, load_acquire(state.reached, other))
    fetch_max(state.safe, 0, stamp)


@kernel
def force(ram, state, cpu, stamp, why):
    """Interrupt the CPUs that have not reached `stamp`, if that is not known to be safe; it is when this
    returns.
    """
    if load_acquire(state.safe, 0) >= stamp:
        return
    fence()
    cpumask_clear(ram.call_mask, cpu)
    for other in range(ram.nr_cpus):
        if not is_away(ram, other) and load_acquire(state.reached, other) < stamp:
            __cpumask_set_cpu(other, ram.call_mask, cpu)
    ask_called(ram, state, cpu, why)
    fetch_max(state.safe, 0, stamp)


@kernel
def pass_quiescent_point(ram, cpu):
    """Flush if behind, say so, and release what that makes safe."""
    state = epoch_state(ram)
    store_release(state.reached, cpu, catch_up(ram, state, cpu))
    look_at_all(ram, state)
    if advance_zones(ram, state, cpu) > TIMEOUT_NS:
        force(ram, state, cpu, load_acquire(state.stamp, 0), TIMED_OUT)
        advance_zones(ram, state, cpu)
    return 0


@hook("pte_cleared")
def epoch_pte_cleared(ram, cpu, mm, vpn, pte, thing):
    return defer_unmap(ram, epoch_state(ram), cpu, mm, pte, thing)


@hook("batch_key")
def epoch_batch_key(ram, cpu, a, b, c, d):
    state = epoch_state(ram)
    if state.lazy_count[cpu] == 0:
        return 0
    end_batch(ram, state, cpu)
    return load_acquire(state.stamp, 0)


@hook("take_done")
def epoch_take_done(ram, cpu, a, b, c, d):
    state = epoch_state(ram)
    if state.need[cpu]:
        force(ram, state, cpu, state.need[cpu], TAKEN)
        publish_taken(ram, state, cpu)
    return 0


@hook("write_fault")
def epoch_write_fault(ram, cpu, mm, vma, vpn, thing):
    state = epoch_state(ram)
    force(ram, state, cpu, stamp_of_write_fault(ram, state, mm, vma, thing), VISIBLE)
    return 0


@hook("file_write")
def epoch_file_write(ram, cpu, thing, page, c, d):
    state = epoch_state(ram)
    force(ram, state, cpu, load_acquire(state.file_stamp, thing), FILE_CHANGED)
    return 0


@hook("truncate")
def epoch_truncate(ram, cpu, thing, page, c, d):
    state = epoch_state(ram)
    force(ram, state, cpu, load_acquire(state.file_stamp, thing), VISIBLE)
    return 0


@hook("context_switch")
def epoch_context_switch(ram, cpu, before, after, task, d):
    return pass_quiescent_point(ram, cpu)


@hook("tick")
def epoch_tick(ram, cpu, a, b, c, d):
    return pass_quiescent_point(ram, cpu)


@hook("idle")
def epoch_idle(ram, cpu, a, b, c, d):
    return pass_quiescent_point(ram, cpu)


class Epoch(Design):
    """frames wait until every CPU has passed a tick, a switch or idleness; interrupts only to laggards"""

    name = "epoch"
    hooks = (
        *HELD_HOOKS, linux_unmap_flush, linux_mapping_change, epoch_pte_cleared, epoch_batch_key, epoch_take_done, epoch_write_fault,
        epoch_file_write, epoch_truncate, epoch_context_switch, epoch_tick, epoch_idle,
    )  # fmt: skip

    def fields(self, sizes: Sizes):
        return epoch_fields(sizes)

    def prepare(self, ram) -> None:
        prepare_held(ram)

    def statistics(self, ram):
        return held_statistics(ram)
