"""Which CPU belongs to which node of a machine: each node lists its CPUs, takes an equal share of those that
no list names, or has none.

`wanted` has a node's own words each: a list as /sys/devices/system/node/node0/cpulist has it, True, or False.
"""

from __future__ import annotations

from collections.abc import Sequence

from cpus.abi.numbers import CPUS_MAX
from inputs.text import clipped, whole_number


def cpu_list(text: str) -> list[int]:
    """Read a list of CPUs as /sys/devices/system/node/node0/cpulist has it; raises ValueError if it is none,
    or names a CPU that no machine has.

    >>> cpu_list("0-2,8")
    [0, 1, 2, 8]
    """
    found: list[int] = []
    for part in text.split(","):
        words, dash, more = part.partition("-")
        first = whole_number(words)
        last = whole_number(more) if dash else first
        if first is None or last is None or not first <= last < CPUS_MAX:
            raise ValueError(f"it must be numbers and ranges of CPUs below {CPUS_MAX} (got {clipped(part)})")
        found += range(first, last + 1)
    return found


def cpu_nodes(wanted: Sequence[bool | str], cpus: int) -> list[int]:
    """Give the node of each CPU; who says True shares in order; a list may name more CPUs than there are.

    >>> cpu_nodes([True, "1", True], 5)
    [0, 1, 0, 2, 2]
    """
    found = {cpu: n for n, listed in enumerate(wanted) if isinstance(listed, str) for cpu in cpu_list(listed)}
    left = [cpu for cpu in range(cpus) if cpu not in found]
    sharers = [n for n, listed in enumerate(wanted) if listed is True]
    for i, n in enumerate(sharers):
        for cpu in left[len(left) * i // len(sharers) : len(left) * (i + 1) // len(sharers)]:
            found[cpu] = n
    return [found[cpu] for cpu in range(cpus)]


def cpu_mistake(wanted: Sequence[bool | str], cpus: int) -> tuple[str, str, object] | None:
    """Give key, rule and value of the first mistake: a broken list, a CPU of two nodes, one of none; None if
    there is none.
    """
    owner: dict[int, int] = {}
    for i, words in enumerate(wanted):
        if not isinstance(words, str):
            continue
        try:
            listed = cpu_list(words)
        except ValueError:
            listed = []
        if not listed:
            return (
                f"nodes[{i}].cpus",
                f'be true, false, or a list of CPUs below {CPUS_MAX} such as "0-15,32-47"',
                clipped(words),
            )
        for cpu in listed:
            if owner.setdefault(cpu, i) != i:
                return (
                    f"nodes[{i}].cpus",
                    f"name CPUs of no other node; nodes[{owner[cpu]}] has the same",
                    cpu,
                )
    homeless = [cpu for cpu in range(cpus) if cpu not in owner]
    if homeless and True not in wanted:
        return "nodes", f"say to which node each of the {cpus} CPUs belongs", f"no node for CPU {homeless[0]}"
    return None
