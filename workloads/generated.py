"""The generated workloads beside llama.cpp: by name, with their parameters, `NAME:key=value,key=value`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from workloads import churn, fork_storm, munmap_storm, read_only, readers_writer, xsbench
from workloads import direct_io_rounds as direct_io
from workloads import uprobe_rounds as uprobes
from workloads.parameters import Parameter, Room, parameters
from workloads.rows import Workload
from workloads.rules.whole import validate


@dataclass(frozen=True, slots=True)
class Generator:
    """How one is made, what can be said about it, and its line in the list."""

    make: Callable[[Room, int, int, Mapping[str, int]], Workload]
    parameters: Mapping[str, Parameter]
    line: str
    first: str = ""  # the key whose value may stand alone, and must be given


ROUNDS_MAX = 1000

GENERATORS = {
    "xsbench": Generator(
        xsbench.xsbench,
        xsbench.PARAMETERS,
        "XSBench-like: threads look up random entries of a large read-mostly table",
    ),
    "munmap-storm": Generator(
        munmap_storm.munmap_storm,
        munmap_storm.PARAMETERS,
        "threads map, touch, unmap, protect, drop, and check what they read",
    ),
    "readers-writer": Generator(
        readers_writer.readers_writer,
        readers_writer.PARAMETERS,
        "processes read a mapped file that another one writes, syncs and truncates",
    ),
    "churn": Generator(
        churn.churn,
        churn.PARAMETERS,
        "short-lived anonymous memory beside read-only file mappings, under pressure",
    ),
    "fork-storm": Generator(
        fork_storm.fork_storm,
        fork_storm.PARAMETERS,
        "processes fork; parent and child write what they share",
    ),
    "direct-io": Generator(
        direct_io.direct_io,
        direct_io.PARAMETERS,
        "processes read a mapped file that another one reads and writes with O_DIRECT",
    ),
    "uprobes": Generator(
        uprobes.uprobes,
        uprobes.PARAMETERS,
        "processes execute code in which a tracer sets breakpoints and takes them away",
    ),
    "read-only": Generator(
        read_only.read_only,
        read_only.PARAMETERS,
        "read-only:SHARE%, such as 0%, 50%, 99%: so much is mapped read-only, the rest written",
        first="share",
    ),
}


def is_generated(name: str) -> bool:
    """Is it one of these, with parameters or without?"""
    return name.partition(":")[0] in GENERATORS


def lines() -> dict[str, str]:
    """Give name -> what it is, with its parameters."""
    return {
        name: f"{generator.line} ({', '.join(key for key in generator.parameters if key != generator.first)})"
        for name, generator in GENERATORS.items()
    }


def generated(asked: str, *, rounds: int, room: Room, threads: int | None, seed: int) -> Workload:
    """Make the workload that `asked` names; raises ValueError with parameter, rule and value."""
    name, _, text = asked.partition(":")
    generator = GENERATORS[name]
    if generator.first and "=" not in text.partition(",")[0]:
        value, comma, rest = text.partition(",")
        text = f"{generator.first}={value.removesuffix('%')}{comma}{rest}"
    given = parameters(name, text, generator.parameters)
    if generator.first and generator.first not in given:
        raise ValueError(
            f"workload {name!r}: {generator.first!r} must be given, as in {name}:50% (got {asked!r})"
        )
    if not 1 <= rounds <= ROUNDS_MAX:
        raise ValueError(f"'tokens' must be from 1 to {ROUNDS_MAX} rounds for {name!r} (got {rounds})")
    if threads is not None:
        if "threads" not in generator.parameters:
            raise ValueError(f"'threads' must be left to {name!r} (got {threads})")
        given |= parameters(name, f"threads={threads}", generator.parameters)
    made = replace(generator.make(room, rounds, seed, given), name=asked, parameters=given)
    validate(made)
    return made
