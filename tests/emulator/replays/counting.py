"""A design whose mistake takes two statements of one hook: only a hand-over between them shows it."""

from cpus.atomics import load_acquire
from designs.design import hook, replaced
from designs.linux import Linux
from designs.state import own_fields


def _counts(sizes):
    return {"total": (1,), "own": (sizes.nr_cpus,)}


counts_of = own_fields("counting", _counts)


@hook("interrupt")
def count_wrongly(ram, cpu, a, b, c, d):
    counts = counts_of(ram)
    seen = load_acquire(counts.total, 0)
    counts.total[0] = seen + 1  # whoever counted between these two lines is forgotten
    counts.own[cpu] += 1
    return 0


class Counting(Linux):
    """vanilla Linux that counts interrupts with a load and a store"""

    name = "counting"
    hooks = replaced(Linux.hooks, count_wrongly)

    def fields(self, sizes):
        return _counts(sizes)

    def statistics(self, ram):
        lost = int(ram.design["own"].sum() - ram.design["total"][0])
        return {"findings": [f"{lost} lost"] if lost else []}
