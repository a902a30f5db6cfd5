"""The modules of this room that the memory map is assembled from, in the order in which their fields lie."""

from cpus import (
    access,
    completion,
    events,
    faults,
    host,
    install,
    ipi,
    lease,
    live,
    locks,
    oracle,
    page_table,
    points,
    process,
    steal,
    strategies,
    tlb,
    trace,
    uncompiled,
    zeromq,
)

MODULES = (
    *(install, lease, strategies, points, steal, host, ipi, locks, zeromq, process),
    *(events, faults, trace, uncompiled),
    *(tlb, page_table, completion, oracle, access, live),
)
