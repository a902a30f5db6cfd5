"""The modules of this room that the memory map is assembled from, in the order in which their fields lie."""

from cpus import access, completion, ipi, lease, live, locks, oracle, process, zeromq

MODULES = (lease, ipi, locks, zeromq, process, completion, oracle, access, live)
