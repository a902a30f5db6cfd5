"""Read a script from a TOML file: the calls of workloads/calls.py as lists, the same language as the Python
form.

    name = "example"

    [[region]]                      # regions of every process that has none of its own ([[process.region]])
    name = "heap"
    pages = 64                      # of 4 KiB
    writable = true

    [[process]]
    name = "main"
    cpus = [0, 1]                   # where its threads are pinned; left out: the scheduler chooses
    threads = [
        [["store", "heap"], ["meet", "ready", 2], ["munmap", "heap", {page = 8, pages = 4}]],
        [["meet", "ready", 2]],
    ]

A step is [call, arguments...]; the last argument may be a table of named ones. ["repeat", 3, [steps...]] does
steps three times; "{n}" in a text is then the number of the time, from 1 on. ["until", "flag", [steps...]]
does them until the flag has been posted. Left out: expressions; who needs to compute writes Python.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from inputs.decode import read_toml
from inputs.file import shown
from inputs.text import clipped, visible
from workloads.calls import Calls, reported
from workloads.rows import Region
from workloads.rules.sizes import NAME_MAX
from workloads.script import ROWS_MAX, Script, ScriptError, Thread

REPEAT, UNTIL, NUMBER = "repeat", "until", "{n}"
TIMES_MAX = 1_000_000
SCRIPT_KEYS: dict[str, type] = {"name": str, "description": str, "region": list, "process": list}
PROCESS_KEYS: dict[str, type] = {"name": str, "threads": list, "region": list, "cpus": list, "forked": bool}
REGION_KEYS: dict[str, type] = {
    field.name: {"int": int, "bool": bool}.get(str(field.type), str) for field in fields(Region)
}
TYPES: dict[type, str] = {str: "text", list: "a list", bool: "true or false", int: "a whole number"}


def script_from_toml(path: str | Path) -> Script:
    """Read a script. Raises ScriptError naming file, process, thread, step, rule and value."""
    table = read_toml(path, ScriptError)
    name = shown(path)
    _check(name, table, SCRIPT_KEYS, ("process",))
    steps = 0
    try:
        script = _FileScript(
            name,
            table.get("name", visible(Path(path).stem)[:NAME_MAX]),
            " ".join(table.get("description", "").split()),
            _regions(name, table),
        )
    except ScriptError as error:
        raise ScriptError(f"{name}: {error}") from error
    for number, process in enumerate(table["process"]):
        where = f"{name}: process {number}"
        _check(where, process, PROCESS_KEYS, ("name", "threads"))
        threads = [_thread_of(f"{where} thread {i}", steps) for i, steps in enumerate(process["threads"])]
        cpus = process.get("cpus", [])
        _require(
            where, "cpus", "a list of CPU numbers", cpus, all(type(cpu) is int and cpu >= 0 for cpu in cpus)
        )
        own = _regions(where, process) if "region" in process else None
        try:
            script.process(process["name"], threads, own, cpus, process.get("forked", False))
        except ScriptError as error:
            raise ScriptError(f"{name}: {error}") from error
        steps += sum(_times(step) for thread in process["threads"] for step in thread)
        if steps > ROWS_MAX:
            rule = f"steps, each as often as it is repeated, must be at most {ROWS_MAX:,} in all"
            raise ScriptError(f"{where}: {rule} (got {clipped(steps)})")
    return script


class _FileScript(Script):
    """A script whose errors begin with its file."""

    def __init__(self, path: str, name: str, description: str, regions: list[Region]) -> None:
        super().__init__(name, description, regions)
        self.path = path

    def workload(self) -> Any:
        try:
            return super().workload()
        except ScriptError as error:
            raise ScriptError(f"{self.path}: {error}") from error


def _require(where: str, key: str, rule: str, value: Any, holds: bool) -> None:
    if not holds:
        raise ScriptError(f"{where}: {key!r} must be {rule} (got {clipped(value)})")


def _check(where: str, table: Any, keys: dict[str, type], needed: tuple[str, ...]) -> None:
    """A table has the keys that are needed, no others than are known, of their types."""
    if not isinstance(table, dict):
        raise ScriptError(f"{where}: must be a table (got {clipped(table)})")
    for key in needed:
        if key not in table:
            raise ScriptError(f"{where}: {key!r} is missing")
    for key, value in table.items():
        if key not in keys:
            raise ScriptError(f"{where}: {clipped(key)} must be one of {', '.join(keys)}")
        _require(where, key, TYPES[keys[key]], value, type(value) is keys[key])


def _regions(where: str, table: dict[str, Any]) -> list[Region]:
    found = []
    for number, region in enumerate(table.get("region", [])):
        _check(f"{where}: region {number}", region, REGION_KEYS, ("name", "pages"))
        found.append(Region(**region))
    return found


def _thread_of(where: str, steps: Any) -> Thread:
    """Make a generator of a list of steps; the script adds process, thread and step to its errors."""
    _require(where, "steps", "a list of steps", steps, isinstance(steps, list))
    return lambda t: (_step(t, step, 0) for step in steps)


def _step(t: Calls, step: Any, time: int) -> Any:
    """Give the rows of one step; `time` counts repetitions."""
    if not isinstance(step, list) or not step:
        raise ValueError(f'a step must be a list such as ["store", "heap"] (got {clipped(step)})')
    call, *arguments = step
    if call == REPEAT:
        return list(_repeated(t, arguments))
    if call == UNTIL:
        return _until(t, arguments, time)
    if call not in Calls.names():
        raise ValueError(Calls.unknown(call))
    named = arguments.pop() if arguments and isinstance(arguments[-1], dict) else {}
    return getattr(t, call)(
        *(_numbered(value, time) for value in arguments),
        **{key: _numbered(value, time) for key, value in named.items()},
    )


def _until(t: Calls, arguments: list[Any], time: int) -> Any:
    """Do steps until a flag is posted."""
    if len(arguments) != 2 or not isinstance(arguments[1], list):
        raise ValueError(f"'until' must be followed by a flag and a list of steps (got {clipped(arguments)})")
    flag, steps = arguments
    return t.until(_numbered(flag, time), [_step(t, step, time) for step in steps])


def _times(step: Any) -> int:
    """Say how often something is done in a step: once, or as often as it is repeated."""
    if not isinstance(step, list) or len(step) != 3 or not isinstance(step[2], list):
        return 1
    if step[0] == UNTIL:
        return 1 + sum(map(_times, step[2]))
    return (
        max(step[1], 0) * (1 + sum(map(_times, step[2]))) if step[0] == REPEAT and type(step[1]) is int else 1
    )


def _repeated(t: Calls, arguments: list[Any]) -> Iterator[Any]:
    """Do steps again and again."""
    if len(arguments) != 2 or not isinstance(arguments[1], list):
        raise ValueError(
            f"'repeat' must be followed by a number and a list of steps (got {clipped(arguments)})"
        )
    times, steps = arguments
    if type(times) is not int or not 1 <= times <= TIMES_MAX:
        raise ValueError(f"'repeat' must be a whole number from 1 to {TIMES_MAX} (got {clipped(times)})")
    for time in range(1, times + 1):
        for number, step in enumerate(steps):
            try:
                yield _step(t, step, time)
            except (ValueError, TypeError) as error:
                raise ValueError(f"repeated step {number}: {reported(t, error)}") from error


def _numbered(value: Any, time: int) -> Any:
    return value.replace(NUMBER, str(time)) if isinstance(value, str) and time else value
