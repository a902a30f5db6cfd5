"""The modules of this room that the memory map is assembled from, in the order in which their fields lie."""

from cpus import (
    access,
    completion,
    events,
    exposed,
    exposed_pages,
    faults,
    host,
    incoherent,
    install,
    ipi,
    lease,
    live,
    lock_order,
    locks,
    lost_data,
    oracle,
    page_table,
    points,
    process,
    spans,
    steal,
    strategies,
    tlb,
    trace,
    uncompiled,
    zeromq,
)

MODULES = (
    *(install, spans, lease, strategies, points, steal, host, ipi, lock_order, locks, zeromq, process),
    *(events, faults, trace, uncompiled),
    *(tlb, page_table, completion, oracle, exposed, exposed_pages, incoherent, lost_data, access, live),
)
