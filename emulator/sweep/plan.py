"""What a sweep runs: from options and a file to a list of jobs, each an experiment with a key of its own.

A point is one combination of the values that are varied; a job is a point with a seed. A varied key is an
option of `luf run`, read by that option's own rule, or a key of the machine, as --set takes it. All jobs of a
seed come before those of the next, every other seed in the other order, so that a host that slows down slows
all points alike.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import itertools
import os
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from emulator.asked import experiments_of
from emulator.cli_arguments import SEEDS_MAX, parser
from emulator.cli_parts import assignment
from emulator.experiment import Experiment
from emulator.order import FINE_SLICE_NS, SLICE_NS
from inputs.checked import converted
from inputs.decode import read_toml
from inputs.file import MIB, read_bytes, shown
from inputs.text import clipped

JOBS_MAX = 100_000
FILE_BYTES = 512 * MIB  # of a recorded trace
APART = ("seed", "seeds", "set", "overrides")  # options that are not to be varied as such
OURS = ("command", "file", "vary", "out", "jobs", "dask", "html")  # of the sweep, not of its runs
Plain = str | int | float | bool
DESIGNS = "design", ["linux", "luf"]
ORDERS: dict[str, list[Plain]] = {"slice": [SLICE_NS, FINE_SLICE_NS], "leases": [1, 2, 4, 16]}

Point = dict[str, str]  # what is varied -> its value, as it is shown


class SweepError(ValueError):
    """A sweep that cannot be made: one sentence."""


class SweepFile(Struct, frozen=True, forbid_unknown_fields=True):
    """What stands in FILE.toml. Keys of the machine may be dotted, or tables in tables."""

    vary: dict[str, Any] = {}
    base: dict[str, Any] = {}
    seeds: Annotated[int, Meta(ge=1, le=SEEDS_MAX)] | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One run. `key` names it in the journal."""

    key: str
    point: Point
    experiment: Experiment


@dataclass(frozen=True, slots=True)
class Plan:
    """All jobs, in the order in which they are begun. `identity` is that of what all have in common: values
    and seeds may be added to a sweep, another machine may not.
    """

    varied: list[str]
    jobs: list[Job]
    identity: str


def plan_of(options: Namespace) -> Plan:
    """Make all jobs. Raises ValueError, before anything runs, for whatever is wrong with one of them."""
    options, varied, source = _asked(options)
    points = [dict(zip(varied, values)) for values in itertools.product(*varied.values())]
    if len(points) * options.seeds > JOBS_MAX:
        raise SweepError(
            f"a sweep must have at most {JOBS_MAX:,} runs (got {len(points) * options.seeds:,}: "
            f"{len(points):,} points with {options.seeds} seeds)"
        )
    made = [(_shown(point), _experiment(options, point, source)) for point in points]
    jobs = []
    for i in range(options.seeds):
        for point, one in reversed(made) if i % 2 else made:
            seed = one.seed + i
            key = " ".join([*(f"{name}={value}" for name, value in point.items()), f"seed={seed}"])
            jobs.append(Job(key, point, replace(one, seed=seed)))
    return Plan(list(varied), jobs, identity_of(options, varied))


def _asked(options: Namespace) -> tuple[Namespace, dict[str, list[Plain]], str]:
    """Put file and command line together; gives all options, what is varied, and where that stands."""
    given: dict[str, list[Plain]] = {}
    source = "--vary"
    if options.file:
        source = shown(options.file)
        file = converted(read_toml(options.file, SweepError), SweepFile, source, SweepError)
        options = _over(_from_file(file, source), options)
        given = {key: _values(key, value, source) for key, value in _flat(file.vary)}
    for text in options.vary:
        key, values = _one_varied(text)
        given[key] = values
    if DESIGNS[0] not in given:
        given = {DESIGNS[0]: list(DESIGNS[1]), **given}
    if options.command == "converge":
        given = {**given, **{key: values for key, values in ORDERS.items() if key not in given}}
    for key, listed in given.items():
        if key in APART:
            rule = "is not varied itself: --seeds N runs each point N times, --set KEY=VALUE is --vary KEY="
            raise SweepError(f"{source}: {key!r} {rule} (got {clipped(listed[0])})")
        if twice := [value for i, value in enumerate(listed) if str(value) in map(str, listed[:i])]:
            raise SweepError(f"{source}: {key!r} must have each value once (got {clipped(twice[0])} twice)")
    return options, given, source


def _one_varied(text: str) -> tuple[str, list[Plain]]:
    """Read KEY=VALUE,VALUE of the command line."""
    key, equals, listed = text.partition("=")
    values: list[Plain] = [value.strip() for value in listed.split(",")]
    if not equals or not key.strip() or not all(values):
        raise SweepError(f"'--vary' must be KEY=VALUE,VALUE, such as memory=60%,80% (got {clipped(text)})")
    return key.strip(), values


def _values(key: str, value: Any, source: str) -> list[Plain]:
    if not isinstance(value, list) or not value or not all(isinstance(one, Plain) for one in value):
        raise SweepError(f"{source}: 'vary.{key}' must be a list of values (got {clipped(value)})")
    return value


def _flat(table: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Give the keys of tables in tables as dotted ones."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _from_file(file: SweepFile, source: str) -> Namespace:
    """Give all options as the file has them."""
    options = parser().parse_args(["sweep"])
    for key, value in _flat(file.base):
        if not isinstance(value, Plain):
            raise SweepError(f"{source}: 'base.{key}' must be one value (got {clipped(value)})")
        _set(options, key, value, f"{source}: 'base.")
    if file.seeds is not None:
        options.seeds = file.seeds
    return options


def _over(options: Namespace, given: Namespace) -> Namespace:
    """Have options of the command line go before those of a file."""
    for name, usual in vars(parser().parse_args(["sweep"])).items():
        value = getattr(given, name)
        if name == "overrides":
            options.overrides = [*options.overrides, *value]
        elif value != usual:
            setattr(options, name, value)
    return options


def _experiment(options: Namespace, point: Mapping[str, Plain], source: str) -> Experiment:
    """Make the experiment of a point, sized, with the first seed."""
    own = copy.copy(options)
    own.overrides = list(options.overrides)
    for key, value in point.items():
        if key == "design":
            own.designs = [str(value)]
        else:
            _set(own, key, value, f"{source}: '")
    return experiments_of(own)[0]


def _set(options: Namespace, key: str, value: Plain, whose: str) -> None:
    """Set an option of `luf run`, or a key of the machine, to what a user wrote. Raises SweepError."""
    text = _text(value)
    try:
        if "." in key:
            options.overrides.append(assignment(f"{key}={text}"))
            return
        setattr(options, key.replace("-", "_"), _converted(key, text))
    except argparse.ArgumentTypeError as error:
        raise SweepError(f"{whose}{key}' {error}") from None


def _converted(key: str, text: str) -> Any:
    """Convert a value by the rule of the option that has this name."""
    run = parser()._subparsers._group_actions[0].choices["run"]  # type: ignore
    actions = {action.dest: action for action in run._actions if action.option_strings}
    known = sorted(name.replace("_", "-") for name in actions if name not in (*APART, "help", "out", "json"))
    if key not in known:
        raise argparse.ArgumentTypeError(
            f"must be design, a dotted key of the machine or one of {', '.join(known)} (got {clipped(key)})"
        )
    action = actions[key.replace("-", "_")]
    if action.nargs == 0:
        if text not in ("true", "false"):
            raise argparse.ArgumentTypeError(f"must be true or false (got {clipped(text)})")
        return text == "true"
    value = action.type(text) if callable(action.type) else text
    if action.choices and value not in action.choices:
        rule = f"must be one of {', '.join(action.choices)}"
        raise argparse.ArgumentTypeError(f"{rule} (got {clipped(text)})")
    return value


def _shown(point: Mapping[str, Plain]) -> Point:
    return {key: _text(value) for key, value in point.items()}


def _text(value: Plain) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def identity_of(options: Namespace, varied: Mapping[str, Sequence[Plain]]) -> str:
    """Give a digest of what all runs have in common, and of each file that it names."""
    common = {
        name: str(value)
        for name, value in sorted(vars(options).items())
        if name not in (*OURS, "designs", "seed", "seeds")
    }
    words = [*common.values(), *(str(value) for values in varied.values() for value in values)]
    files = sorted({file for word in words if (file := _file_of(word))})
    contents = {str(file): _digest(read_bytes(file, most=FILE_BYTES)) for file in files}
    whole = msgspec.json.encode([common, sorted(varied), contents])
    return _digest(whole)[:16]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _file_of(word: str) -> Path | None:
    """Give the file that a value names: FILE.toml, FILE.py:NAME."""
    name = word.partition(":")[0]
    return Path(name) if "." in name and os.path.isfile(name) else None
