"""CPUs that are virtual: a guest with more of them than its host gives it cores (steal time, as /proc/stat calls it).

The host gives each CPU that has something to do a core for a turn of `host_turn_ns`, one after the other. With B busy CPUs on C cores,
B > C, whatever a CPU does takes B / C as long. Who needs something of n others (acks of an interrupt, say) has it when the last of them
has had its turn: on average after n / (n + 1) of a round of B turns. Charged once per slice of virtual time, with as many as are busy then.
A CPU that spins, for acks too, is busy; one that idles is not. `host_cores` 0: every CPU is a core of its own, and nothing here matters.
Left out: which CPUs have a core at a moment (all make the same progress), the host's placement, what else the host runs.
"""

from cpus.atomics import load_acquire
from cpus.compiled import kernel

NOBODY = -1  # of cpu_task


@kernel
def _busy_cpus(ram):
    """How many CPUs have a task that runs, or spins?"""
    busy = 0
    for c in range(ram.nr_cpus):
        busy += load_acquire(ram.cpu_task, c) != NOBODY
    return busy


@kernel
def charge_stolen(ram, cpu):
    """Add to a CPU's clock what the others took of the core since it was last charged."""
    if ram.host_cores == 0:
        return
    stolen = (ram.cpu_clock[cpu] - ram.cpu_charged_ns[cpu]) * (_busy_cpus(ram) - ram.host_cores) // ram.host_cores
    if stolen > 0:
        ram.cpu_clock[cpu] += stolen
    ram.cpu_charged_ns[cpu] = ram.cpu_clock[cpu]


@kernel
def turn_ns(ram, others):
    """How long it takes on average until `others` CPUs have had their turn; 0 if there is a core for each that is busy."""
    if ram.host_cores == 0:
        return 0
    busy = _busy_cpus(ram)
    if busy <= ram.host_cores:
        return 0
    return busy * ram.host_turn_ns * others // (others + 1) // ram.host_cores


@kernel
def pass_time(ram, cpu, ns):
    """Let a CPU wait for `ns` in which it does nothing itself: nobody can steal from that."""
    charge_stolen(ram, cpu)
    ram.cpu_clock[cpu] += ns
    ram.cpu_charged_ns[cpu] = ram.cpu_clock[cpu]


@kernel
def pass_until(ram, cpu, at_ns):
    """Let a CPU wait until virtual time `at_ns`, if that is yet to come."""
    if at_ns > ram.cpu_clock[cpu]:
        charge_stolen(ram, cpu)
        ram.cpu_clock[cpu] = ram.cpu_charged_ns[cpu] = max(ram.cpu_clock[cpu], at_ns)
