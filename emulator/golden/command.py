"""`luf golden`: run every recorded scenario on the emulator and say where it differs from the real kernel.

A thin shell around pure functions: read the recording, emulate (`emulator/golden/micro.py`,
`emulator/golden/pressure.py`), judge, report.
"""

from __future__ import annotations

import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from cpus.abi.numbers import LEASES_MAX
from emulator.golden.bands import Metric, first_runs, judge_directions, judge_runs
from emulator.golden.compare import judge_cells
from emulator.golden.data import FILE, GoldenError, Key, MicroCell, Recording, kernel_folder, read_recording
from emulator.golden.result import Fidelity, read_fidelity
from emulator.golden.rules import Explained, Rules, check_recording, read_explained, read_rules
from emulator.host_facts import check_limits
from emulator.output_file import OutputError, check_output, output_of, write_output
from emulator.published import check_page
from emulator.report.progress import Progress
from emulator.streams import reader_may_leave, tell
from emulator.verdict import BAD_INPUT, CLEAN, of_fidelity
from inputs.file import shown

PICTURES = (".png", ".svg", ".pdf")


@dataclass(frozen=True, slots=True)
class Emulation:
    """The two modules that emulate, as functions, so that tests can put others in their place."""

    scenario_names: Callable[[], Sequence[str]]
    emulate_micro: Callable[..., Mapping[Key, MicroCell]]
    pressure_runs: Callable[[dict[str, Any]], Sequence[str]]
    emulate_pressure: Callable[..., dict[str, Any]]
    pressure_rows: Sequence[Metric]


def emulation() -> Emulation:
    """Return the emulator's own."""
    micro, pressure = import_module("emulator.golden.micro"), import_module("emulator.golden.pressure")
    return Emulation(
        micro.scenario_names,
        micro.emulate_micro,
        pressure.pressure_runs,
        pressure.emulate_pressure,
        pressure.PRESSURE_ROWS,
    )


def golden_command(options: Namespace, emulate: Emulation | None = None) -> int:
    """Compare, report, and return 0 if everything that was judged agrees, else 1."""
    for option in ("json", "plot", "doc"):
        check_place(option, getattr(options, option))
    if options.overrides and (options.doc or not options.pressure or options.micro):
        got = " and ".join(
            ["--set", *(f"--{other}" for other in ("micro", "pressure", "doc") if getattr(options, other))]
        )
        rule = "must stand with --pressure, without --micro and --doc"
        raise GoldenError(f"'--set' {rule}: it changes the machine of pressure runs, to try (got {got})")
    shipped = kernel_folder(options.kernel)
    rules, explained = read_rules(shipped), read_explained(shipped)
    if options.again:
        for option in ("micro", "pressure", "only", "data", "jobs"):
            if getattr(options, option):
                raise GoldenError(f"'--again' must stand without --{option}: nothing is emulated (got both)")
        fidelity = read_fidelity(options.again, rules, explained, read_recording(shipped).docs)
    else:
        recording = part(read_recording(options.data or shipped), options)
        check_recording(rules, recording)
        check_limits()
        fidelity = _compared(recording, emulate or emulation(), rules, explained, options)
    return _leave(fidelity, options)


def _compared(
    recording: Recording, emulate: Emulation, rules: Rules, explained: Explained, options: Namespace
) -> Fidelity:
    jobs = options.jobs or len(os.sched_getaffinity(0))
    cells, known, micro_seconds = _micro(recording, emulate, options.seed, jobs)
    runs, pressure_seconds = _pressure(recording, emulate, options, min(LEASES_MAX, jobs))
    metrics = emulate.pressure_rows
    return Fidelity(
        rules=rules,
        explained=explained,
        rows=judge_cells(recording.micro, cells, known, rules, explained),
        bands=judge_runs(recording.pressure, runs, metrics, explained),
        directions=judge_directions(recording.pressure, runs, metrics, explained),
        docs=recording.docs,
        seed=options.seed,
        repeat=options.repeat,
        jobs=jobs,
        only=options.only,
        shipped=options.data is None,
        micro_seconds=micro_seconds,
        pressure_seconds=pressure_seconds,
    )


def part(recording: Recording, options: Namespace) -> Recording:
    """Return what was asked for of a recording; raises GoldenError if it is nothing, or another kernel's."""
    if not options.kernel == (recording.kernel or options.kernel):
        raise GoldenError(
            f"'--kernel' must be that of the recording, {recording.kernel} (got {options.kernel!r})"
        )
    asked = recording.only(options.only)
    if options.micro != options.pressure:  # both, as neither, is everything
        asked = replace(
            asked,
            micro=asked.micro if options.micro else (),
            pressure=asked.pressure if options.pressure else (),
        )
    if not asked.micro and not asked.pressure:
        kind = "micro scenarios" if options.micro else "pressure runs"
        raise GoldenError(
            f"{shown(recording.folder / FILE)} must have {kind} to compare (got none that match)"
        )
    return asked


def _micro(
    recording: Recording, emulate: Emulation, seed: int, jobs: int
) -> tuple[Mapping[Key, MicroCell], Sequence[str], float]:
    known = emulate.scenario_names()
    asked = [cell.key for cell in recording.micro if cell.scenario in known]
    start = time.monotonic()
    if not asked:
        return {}, known, 0.0
    with Progress("micro", unit="cells") as progress:
        found = emulate.emulate_micro(asked, seed=seed, jobs=jobs, progress=progress)
    return found, known, time.monotonic() - start


def _pressure(
    recording: Recording, emulate: Emulation, options: Namespace, leases: int
) -> tuple[dict[str, list[dict[str, Any]]], float]:
    """Return what each run did, an entry for each seed, and how long all that took."""
    known = set(emulate.pressure_runs(recording.raw))
    asked = [run for run in first_runs(recording.pressure) if run.tag in known]
    changes = dict(options.overrides)
    found: dict[str, list[dict[str, Any]]] = {}
    start = time.monotonic()
    for i, run in enumerate(asked):
        for seed in range(options.seed, options.seed + options.repeat):
            with Progress(
                f"{run.tag} ({i + 1} of {len(asked)}), seed {seed}", width=12, unit="steps"
            ) as progress:
                done = emulate.emulate_pressure(
                    run.entry, leases=leases, seed=seed, progress=progress, changes=changes
                )
            found.setdefault(run.tag, []).append(done)
    return found, time.monotonic() - start


def check_place(option: str, file: str | None) -> None:
    """Refuse, before anything runs, a file that could not be written at the end."""
    if file is None or (option == "json" and file == "-"):
        return
    check_output(option, file)
    path = Path(file)
    ending = {"plot": PICTURES, "doc": (".md",)}.get(option)
    if ending and path.suffix not in ending:
        raise GoldenError(f"'--{option}' must end in {', '.join(ending)} (got {path.name!r})")
    if option == "doc":
        check_page(path, "--doc draft.md")


def _leave(fidelity: Fidelity, options: Namespace) -> int:
    """Print the report, or the JSON instead of it, and write the files that were asked for; returns the exit
    code. What cannot be written is told, and costs only itself.
    """
    from emulator.golden.document import document, picture_of

    pictures = [Path(options.plot)] if options.plot else []
    steps = [lambda: _print(fidelity, options)]
    if options.json and options.json != "-":
        steps.append(lambda: write_output("json", options.json, fidelity.to_json()))
    if options.doc:
        pictures.append(picture_of(options.doc))
        steps.append(lambda: write_output("doc", options.doc, document(fidelity, pictures[-1].name)))
    steps += [partial(_draw, fidelity, picture) for picture in dict.fromkeys(pictures)]
    code = of_fidelity(fidelity).code
    for step in steps:
        try:
            step()
        except OutputError as error:
            tell(f"luf: {error}")
            code = BAD_INPUT if code == CLEAN else code
    return code


def _print(fidelity: Fidelity, options: Namespace) -> None:
    from emulator.golden.report import print_fidelity

    with reader_may_leave():
        if options.json == "-":
            sys.stdout.write(fidelity.to_json())
        else:
            print_fidelity(fidelity, sys.stdout, everything=options.all)


def _draw(fidelity: Fidelity, picture: Path) -> None:
    from emulator.golden.plot import draw_fidelity

    with output_of("plot", str(picture)):
        draw_fidelity(fidelity, picture)
