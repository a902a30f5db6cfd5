"""What was asked for with the options of `luf run`, as experiments."""

from __future__ import annotations

import os
from argparse import Namespace
from dataclasses import replace

from cpus.abi.numbers import LEASES_MAX
from cpus.uncompiled import UNCOMPILED
from emulator.cli_arguments import MACHINE
from emulator.experiment import Experiment
from emulator.litmus.machine import BASE, machine_of
from emulator.machine import Machine, load_machine
from emulator.order import LONG_SLICE_NS
from workloads.litmus.shelf import is_litmus, litmus_test


def experiments_of(options: Namespace) -> list[Experiment]:
    """Describe the run of each design, all on one machine and workload. Raises ValueError for whatever is
    wrong with them, before anything runs.
    """
    machine = _machine(options)
    options.scale = machine.scale
    if options.leases is None:
        options.leases = 1 if UNCOMPILED else min(LEASES_MAX, len(os.sched_getaffinity(0)))
    how = ("memory", "tokens", "leases", "seed", "check", "strict_ipi", "debug_luf", "schedule")
    given = {name: getattr(options, name) for name in how}
    first = Experiment(options.designs[0], machine, options.workload, slice_ns=_slice_ns(options), **given)
    others = [replace(first, design=design) for design in options.designs[1:]]
    first = first.sized()
    return [first, *(replace(first, design=other.design) for other in others)]


def _slice_ns(options: Namespace) -> int | None:
    """Give the slice that was asked for, or that of a litmus test. Raises ValueError."""
    if options.slice is not None and options.schedule is not None:
        rule = "must not be given with --schedule, which has slice_ns"
        raise ValueError(f"'--slice' {rule} (got {options.slice})")
    return options.slice or (LONG_SLICE_NS if is_litmus(options.workload) else None)


def _machine(options: Namespace) -> Machine:
    """Load the machine that was asked for, or a litmus test's own."""
    overrides = dict(options.overrides)
    if options.machine is None and is_litmus(options.workload):
        options.machine = BASE
        return machine_of(
            litmus_test(options.workload), scale=options.scale, cpus=options.cpus, overrides=overrides
        )
    options.machine = options.machine or MACHINE
    return load_machine(options.machine, scale=options.scale, cpus=options.cpus, overrides=overrides)
