"""End a run with scheduling points that goes on for too long, as some of a generator's schedules do.

Looked at when half of `points_max` have been passed, and at all of them: a run in which no thread has got on
between two looks is none that is long, and is left to whoever looks for livelocks. Left out: runs without a
bound.
"""

from allocator.panic import CUT_SHORT, panic
from cpus.compiled import apart, kernel
from cpus.declare import Exclusive, Field, Struct

LOOKS = 2  # in so many points as are allowed
FIELDS = (
    Struct("one", "schedule", (
        Field("run_got_on", Exclusive("who executes, under one lease"), "rows and visits so far"),
    )),
)  # fmt: skip


@kernel
def _got_on(ram):
    """Count how far threads have come."""
    total = 0
    for task in range(ram.user_tasks):
        total += ram.task_row[task] + ram.task_visit[task]
    return total


@apart
def cut_short(ram, cpu, points):
    """So many points have been passed, as many as were to be before the next look."""
    got_on = _got_on(ram)
    if points >= ram.points_max and got_on != ram.run_got_on[0]:
        panic(ram, cpu, CUT_SHORT, points, ram.points_max)
    ram.run_got_on[0] = got_on
    ram.run_points_bound[0] += max(ram.points_max // LOOKS, 1)
    return 0
