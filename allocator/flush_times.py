"""When shootdowns were made: a small table of requests by site and piece of virtual time, for each CPU.

How long a run will be nobody knows. So pieces are short at first, and when the clock passes the last one, two
become one, twice as long: the table is always at least half full, and no request is forgotten. Each CPU does
so for itself; who reads the tables brings them to the longest pieces of all (emulator/report/timeline.py).
Left out: which CPUs were asked, which only the event rings have.
"""

from allocator.flush_sites import NR_SITES
from cpus.compiled import inlined, kernel
from cpus.declare import OWNER, Field

TIME_PIECES = 512  # in which a run is divided; a power of two
FIELDS = (
    Field("site_time", OWNER, "requests sent, by SITE_* and piece of virtual time",
          ("nr_cpus", NR_SITES * TIME_PIECES)),
    Field("site_time_joined", OWNER, "how often two pieces of site_time have become one", ("nr_cpus",)),
)  # fmt: skip

FIRST_SHIFT = 12  # the first pieces are of 4,096 ns


@kernel
def _join_pairs(ram, cpu):
    """Make the pieces twice as long."""
    for site in range(NR_SITES):
        first = site * TIME_PIECES
        for i in range(TIME_PIECES // 2):
            both = ram.site_time[cpu, first + 2 * i] + ram.site_time[cpu, first + 2 * i + 1]
            ram.site_time[cpu, first + i] = both
        for i in range(TIME_PIECES // 2, TIME_PIECES):
            ram.site_time[cpu, first + i] = 0
    ram.site_time_joined[cpu] += 1


@inlined
def note_time(ram, cpu, site, asked):
    """Count `asked` requests of this CPU at its time."""
    while ram.cpu_clock[cpu] >> (FIRST_SHIFT + ram.site_time_joined[cpu]) >= TIME_PIECES:
        _join_pairs(ram, cpu)
    piece = ram.cpu_clock[cpu] >> (FIRST_SHIFT + ram.site_time_joined[cpu])
    ram.site_time[cpu, site * TIME_PIECES + piece] += asked
