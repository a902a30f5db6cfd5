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
from cpus.compiled import entry, kernel
from cpus.cpumask import __cpumask_set_cpu, cpumask_clear
from cpus.layout import Sizes
from designs.deferral import end_deferred_batch
from designs.design import Design, hook, hooks
from designs.held import (
    FORCE,
    HELD_HOOKS,
    HELD_RELIES_ON,
    NEWEST,
    ask_called,
    catch_up,
    held_fields,
    held_statistics,
    hold_unmap,
    is_away,
    prepare_held,
    release_zones,
)
from designs.linux import linux_mapping_change, linux_unmap_flush
from designs.state import own_fields


def epoch_fields(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Shared fields: those of held frames, and how far each CPU is."""
    # the CPU writes, any reads: stamp up to which it has flushed
    return held_fields(sizes) | {"reached": (sizes.nr_cpus,)}


epoch_state = own_fields("epoch", epoch_fields)


@kernel
def look_at_all(ram, state):
    """Raise `safe` to what every CPU has reached that is not away."""
    stamp = load_acquire(state.stamp, 0)
    fence()  # the stamp before the look at who is away: pairs with switch_mm
    for other in range(ram.nr_cpus):
        if not is_away(ram, other):
            stamp = min(stamp, load_acquire(state.reached, other))
    fetch_max(state.safe, 0, stamp)


@entry(FORCE)
def epoch_force(ram, cpu, stamp, why):
    """Interrupt the CPUs that have not reached `stamp`."""
    state = epoch_state(ram)
    fence()
    cpumask_clear(ram.call_mask, cpu)
    for other in range(ram.nr_cpus):
        if not is_away(ram, other) and load_acquire(state.reached, other) < stamp:
            __cpumask_set_cpu(other, ram.call_mask, cpu)
    ask_called(ram, state, cpu, why)
    fetch_max(state.safe, 0, stamp)
    return 0


@hooks("context_switch", "tick", "idle")
def epoch_quiescent(ram, cpu, a, b, c, d):
    """A quiescent point: flush if behind, say so, and release what that makes safe."""
    state = epoch_state(ram)
    store_release(state.reached, cpu, catch_up(ram, state, cpu))
    look_at_all(ram, state)
    release_zones(ram, state, cpu, NEWEST)
    return 0


@hook("pte_cleared")
def epoch_pte_cleared(ram, cpu, mm, vpn, pte, object):
    return hold_unmap(ram, epoch_state(ram), cpu, mm, pte, object)


@hook("batch_key")
def epoch_batch_key(ram, cpu, a, b, c, d):
    state = epoch_state(ram)
    if not state.lazy_required[cpu]:
        return 0
    end_deferred_batch(state, cpu)
    return load_acquire(state.stamp, 0)


class Epoch(Design):
    """frames wait until every CPU has passed a tick, a switch or idleness; interrupts only to laggards"""

    name = "epoch"
    relies_on = HELD_RELIES_ON
    hooks = (
        *HELD_HOOKS, linux_unmap_flush, linux_mapping_change, epoch_force, epoch_pte_cleared, epoch_batch_key,
        *epoch_quiescent,
    )  # fmt: skip

    def fields(self, sizes: Sizes):
        return epoch_fields(sizes)

    def prepare(self, ram) -> None:
        prepare_held(ram)

    def statistics(self, ram):
        return held_statistics(ram)
