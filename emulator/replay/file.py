"""A replay file: a case in TOML, and what it showed.

    design = "none:what=user"
    seed = 7
    schedule = "listed:seed=1,window_ns=20000000,tick_ns=500000"
    switches = [[0, 1204, 2], [2, 88, 0]]
    signature = "access after completion: load, taken away by munmap"
    fingerprint = "5d0c..."
    test = \'\'\'
    machine:  cpus = 3
    ...
    \'\'\'

`test` is a litmus test (docs/litmus.md); instead of it there may be `workload`, `machine`, `cpus`, `scale`,
`tokens` and a table `set` with keys of the machine, or `litmus`, the name of a test that ships or of a file
beside this one. A design of a user's file is named with that file, whose text is known by `design_text`.
`switches` are hand-overs: (CPU, scheduling points that it has passed, CPU that runs then). Without `schedule`
the run has no scheduling points.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from emulator.experiment import Experiment
from emulator.replay.case import TEST, Case
from emulator.schedule import Schedule, parse_schedule
from inputs.decode import read_toml
from inputs.file import SOURCE_BYTES, read_bytes, shown
from inputs.text import clipped
from workloads.litmus.family import SUFFIX
from workloads.litmus.laid_out import text_of
from workloads.litmus.shelf import litmus_test

Made = TypeVar("Made")
DIGEST = 16  # hexadecimal digits of a text that are kept
SWITCHES_ON_A_LINE = 8


class ReplayError(ValueError):
    """A replay file that cannot be used: one sentence."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A case with what it showed when it was written. `design_text` is the digest of a user's design file."""

    case: Case
    signature: str = ""
    fingerprint: str = ""
    design_text: str = ""
    why: str = ""  # what it is about, for a reader


_TEXT, _WHOLE, _TRUTH, _TABLE, _LIST, _NUMBER = (
    (str, "text"), (int, "a whole number"), (bool, "true or false"), (dict, "a table"), (list, "a list"),
    ((int, float), "a number"),
)  # fmt: skip
KEYS: dict[str, tuple[Any, str]] = {
    "why": _TEXT, "design": _TEXT, "design_text": _TEXT, "test": _TEXT, "litmus": _TEXT, "workload": _TEXT,
    "machine": _TEXT, "cpus": _WHOLE, "scale": _NUMBER, "tokens": _WHOLE, "set": _TABLE, "seed": _WHOLE,
    "check": _TEXT, "debug_luf": _TRUTH, "schedule": _TEXT, "switches": _LIST, "signature": _TEXT,
    "fingerprint": _TEXT,
}  # fmt: skip
WHAT_RUNS = ("test", "litmus", "workload")


def read_replay(path: str | Path) -> Recorded:
    """Read a file. Raises ReplayError with file, key, rule and value."""
    name = shown(path)
    table = read_toml(path, ReplayError)
    for key, value in table.items():
        if key not in KEYS:
            raise ReplayError(f"{name}: a key must be one of {', '.join(KEYS)} (got {clipped(key)})")
        kind, noun = KEYS[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ReplayError(f"{name}: {key!r} must be {noun} (got {clipped(value)})")
    if not table.get("design"):
        raise ReplayError(f"{name}: 'design' must be given: a name, or FILE.py:CLASS")
    given = [key for key in WHAT_RUNS if table.get(key)]
    if len(given) != 1:
        known = ", ".join(map(repr, WHAT_RUNS))
        raise ReplayError(f"{name}: one of {known} must be given (got {', '.join(given) or 'none'})")
    if "workload" in given and not table.get("machine"):
        raise ReplayError(f"{name}: 'machine' must be given with 'workload'")
    schedule = _blamed(name, lambda: _schedule(table))
    folder = Path(path).parent
    case = Case(
        design=_beside(table["design"], folder), test=_blamed(name, lambda: _test(table, folder)),
        workload=table.get("workload", ""), machine=table.get("machine", ""), cpus=table.get("cpus"),
        scale=table.get("scale"), tokens=table.get("tokens", 2), overrides=table.get("set", {}),
        seed=table.get("seed", 1), check=table.get("check", "full"), debug_luf=table.get("debug_luf", False),
        schedule=schedule,
    )  # fmt: skip
    words = (table.get(key, "") for key in ("signature", "fingerprint", "design_text", "why"))
    return Recorded(case, *words)


def experiment_of(path: str | Path, case: Case) -> Experiment:
    """Put together what runs. Raises ReplayError for what cannot."""

    def made() -> Experiment:
        experiment = case.experiment(TEST)
        experiment.made()  # a workload by name is wrong here, too, or nowhere
        return experiment

    return _blamed(shown(path), made)


def _blamed(name: str, make: Callable[[], Made]) -> Made:
    """Call it; a mistake that it finds is this file's."""
    try:
        return make()
    except ValueError as error:
        raise ReplayError(f"{name}: {error}") from None


def _schedule(table: dict[str, Any]) -> Schedule | None:
    if "schedule" not in table:
        if "switches" in table:
            raise ValueError("'switches' must have a 'schedule' with them, \"listed\"")
        return None
    for one in table.get("switches", ()):
        if not isinstance(one, list) or [type(number) for number in one] != [int] * 3:
            raise ValueError(
                "'switches' must be triples of whole numbers: a CPU, points that it has passed, "
                f"the CPU that runs then (got {clipped(one)})"
            )
    schedule = parse_schedule(table["schedule"])
    return replace(schedule, switches=table["switches"]) if "switches" in table else schedule


def _test(table: dict[str, Any], folder: Path) -> str:
    """Give the text of its test; a named one is written out, with the values of its parameters."""
    if "litmus" not in table:
        return str(table.get("test", ""))
    base, _, given = table["litmus"].partition(":")
    beside = folder / base
    if base.endswith(SUFFIX) and not os.path.lexists(base) and os.path.lexists(beside):
        base = str(beside)
    return text_of(litmus_test(":".join(filter(None, (base, given)))).sheet)


def _beside(design: str, folder: Path) -> str:
    """Give the name of a design; its file may lie beside the replay file."""
    file, colon, rest = design.partition(".py:")
    file = f"{file}.py" if colon else ""
    if file and not os.path.lexists(file) and os.path.lexists(folder / file):
        return f"{folder / file}:{rest}"
    return design


def design_digest(design: str) -> str:
    """Give the digest of a user's design file; empty for a design of the shelf."""
    file, colon, _ = design.partition(".py:")
    if not colon:
        return ""
    data = read_bytes(f"{file}.py", most=SOURCE_BYTES, refusal=ReplayError)
    return hashlib.sha256(data).hexdigest()[:DIGEST]


def replay_text(recorded: Recorded) -> str:
    """Write it, so that reading it gives the same. A test must not have three quotes in a row."""
    case = recorded.case
    values: dict[str, Any] = {
        "why": recorded.why, "design": case.design,
        "design_text": recorded.design_text, "workload": case.workload, "machine": case.machine,
        "cpus": case.cpus, "scale": case.scale,
        "tokens": case.tokens if case.workload else None, "seed": case.seed,
        "check": "" if case.check == "full" else case.check, "debug_luf": case.debug_luf or None,
        "schedule": str(case.schedule) if case.schedule else "",
        "signature": recorded.signature, "fingerprint": recorded.fingerprint,
    }  # fmt: skip
    lines = [f"{key} = {_plain(value)}" for key, value in values.items() if value not in ("", None)]
    if case.schedule and case.schedule.strategy == "listed":
        lines.append(f"switches = {_switches(case.schedule)}")
    if case.overrides:
        inner = ", ".join(f"{_plain(key)} = {_plain(value)}" for key, value in case.overrides.items())
        lines.append(f"set = {{ {inner} }}")
    if case.test:
        if "'''" in case.test:
            raise ReplayError("'test' must not have three quotes in a row")
        lines.append(f"test = '''\n{case.test.strip(chr(10))}\n'''")
    return "\n".join(lines) + "\n"


def _plain(value: Any) -> str:
    """Write a text, number, truth or list of these; JSON's are TOML's, too."""
    return json.dumps(value, ensure_ascii=False)


def _switches(schedule: Schedule) -> str:
    one = [str(list(switch)) for switch in schedule.switches]
    if len(one) <= SWITCHES_ON_A_LINE:
        return f"[{', '.join(one)}]"
    lines = [", ".join(one[i : i + SWITCHES_ON_A_LINE]) for i in range(0, len(one), SWITCHES_ON_A_LINE)]
    return "[\n    " + ",\n    ".join(lines) + ",\n]"
