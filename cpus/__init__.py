"""The hardware of the emulated machine: shared RAM, atomics, TLBs, page-table walk, interrupts, virtual
clocks, leases.

Knows no policy: nothing here decides when to flush, reclaim or migrate. Imports nothing from the other rooms.
"""
