"""The command `luf`: run designs, compare them, report. A dispatcher; the work is done elsewhere.

Everything that takes long to import is imported by the command that needs it.
"""

from __future__ import annotations

import os
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emulator.cli_arguments import LISTED, parse
from emulator.ending import SIGNALLED, endings_held, endings_raised
from emulator.sentences import answer
from emulator.streams import can_print, leave_at_once, reader_may_leave, ready_streams, settled, tell
from emulator.verdict import CLEAN, DIRTY, of_comparison
from inputs.text import clipped

if TYPE_CHECKING:
    from emulator.experiment import Experiment
    from emulator.forms import Form
    from emulator.kept import Planned
    from emulator.machine import Machine
    from emulator.perfetto.file import TraceFile
    from emulator.result import Result

NAME_BYTES = 255  # of a file or folder: Linux's NAME_MAX


class InputError(ValueError):
    """What was asked for cannot be done: one sentence."""


def program() -> int:
    """Run the command line as a program of its own, which is gone at once when it was interrupted."""
    try:
        code = main()
    except SystemExit as leaving:
        code = int(leaving.code or 0)  # of the argument parser, which has said what it had to
    except KeyboardInterrupt:  # Ctrl-C once more, while the first was answered
        code = SIGNALLED + signal.SIGINT
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python, as it ends, would print a traceback
    if code > SIGNALLED:
        leave_at_once(code)
    return code


def main(arguments: list[str] | None = None, *, emulate: Any = None) -> int:
    """Run the command line and return its exit code. Tests give an emulation of their own: of an experiment,
    or what `luf golden` runs.
    """
    commands: dict[str, Callable[[Namespace, Any], int]] = {
        "compare": compare_command,
        "run": compare_command,
        "golden": golden,
        "litmus": litmus,
        "list": list_command,
        "replay": replay,
        "report": report_command,
        "stress": stress,
        "converge": sweep,
        "sweep": sweep,
    }
    ready_streams()
    try:
        with endings_raised():
            with reader_may_leave():  # --help
                options = parse(arguments)
            with endings_held():
                import msgspec  # noqa: F401 (it swallows what a handler raises meanwhile, and crashes later)
            code = commands[options.command](options, emulate)
    except SystemExit as leaving:
        raise SystemExit(settled(int(leaving.code or 0))) from None
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 (the last resort: a sentence for the user, the traceback on request)
        code = answer(error)
    return settled(code)


# -- luf compare, luf run ------------------------------------------------------------------------------------


def compare_command(options: Namespace, emulate: Any) -> int:
    """Run the designs and leave a folder, a report and, if asked for, JSON."""
    from emulator.asked import experiments_of
    from emulator.host_facts import check_host
    from emulator.kept import Kept

    _check_places(options)
    if getattr(options, "sensitivity", False):
        from emulator.sensitivity.command import sensitivity_command

        return sensitivity_command(options, emulate)
    controlled = options.leases == 1  # asked for: that the host has one core is another thing
    experiments = experiments_of(options)
    machine = experiments[0].machine
    check_host(machine)
    if controlled:
        tell(
            "luf: --leases 1 is the controlled mode: one CPU at a time, the run repeats exactly "
            f"with --seed {options.seed}"
        )
    form = _form(several=options.seeds > 1)
    in_turn, planned = _in_turn(experiments, options.seeds)
    kind = "compare" if options.command == "compare" else _folder_name(options.designs[0])
    kept = Kept(form, planned, options.out, kind, options.json, _config(machine, options))
    width = max(len(one.name) for one in planned)
    try:
        with _traced(options.trace) as trace:
            for experiment, one in zip(in_turn, planned, strict=True):
                kept.add(_run(experiment, one.name, emulate or _emulate, width, trace))
        return kept.finish()
    except BaseException as error:
        kept.stopped(error)
        raise


def _form(several: bool) -> Form:
    """How results are shown: of one run of each design, or of several."""
    if several:
        from emulator.repeats.form import SEVERAL

        return SEVERAL
    from emulator.forms import ONE_EACH

    return ONE_EACH


def _in_turn(experiments: Sequence[Experiment], seeds: int) -> tuple[list[Experiment], list[Planned]]:
    """Give each experiment with so many seeds: all designs with one seed, then with the next, in the other
    order, so that a host that slows down slows all alike.
    """
    from dataclasses import replace

    from emulator.kept import Planned
    from emulator.result import unique

    columns = unique(one.design.name for one in experiments)
    found, planned = [], []
    for i in range(seeds):
        turn = list(zip(experiments, columns, strict=True))
        for one, column in reversed(turn) if i % 2 else turn:
            found.append(replace(one, seed=one.seed + i))
            planned.append(Planned(f"{column}, seed {one.seed + i}" if seeds > 1 else column, column))
    return found, planned


@contextmanager
def _traced(file: str | None) -> Iterator[TraceFile | None]:
    """Give the trace that is asked for, and say what became of it."""
    if file is None:
        yield None
        return
    from emulator.perfetto.file import TraceFile

    trace = TraceFile(file)
    try:
        with trace:
            yield trace
    finally:  # also of runs that were stopped
        if trace.written:
            tell(f"luf: {trace.said()}")


def _run(experiment: Experiment, name: str, emulate: Any, width: int, trace: TraceFile | None) -> Result:
    from emulator.report.progress import Progress

    with Progress(name, width=width, view=True) as progress:
        run: Result = emulate(experiment, progress, **{"trace": trace} if trace else {})
    return run


def _emulate(experiment: Experiment, progress: Any, trace: TraceFile | None = None) -> Result:
    from emulator.experiment import StatisticsError

    try:
        return experiment.run(progress=progress, trace=trace)
    except StatisticsError as error:
        progress.line(f"luf: {error}")
        return error.result  # where it is a finding


def _config(machine: Machine, options: Namespace) -> dict[str, Any]:
    """Return the whole configuration as it was resolved."""
    from emulator.machine import machine_table

    config = {name: value for name, value in vars(options).items() if name != "overrides"}
    return config | {
        "scale": machine.scale,
        "workload_scale": options.scale,
        "cpus": machine.cpus,
        "set": dict(options.overrides),
        "machine": machine_table(machine),
    }


def _folder_name(design: str) -> str:
    """Name a run's folder after its design: `luf-sync=help`, or the class of a file."""
    return "-".join(part for part in design.split(":") if "/" not in part and not part.endswith(".py"))


def _check_places(options: Namespace) -> None:
    from emulator.output_file import can_hold, check_output

    out = Path(os.path.realpath(options.out))  # where a link leads to that has no folder yet
    there = next((path for path in (out, *out.parents) if os.path.exists(path)), Path("/"))
    if not can_hold(there) or any(len(os.fsencode(part)) > NAME_BYTES for part in out.parts):
        raise InputError(f"'--out' must be a folder that can be written to (got {clipped(options.out)})")
    json = getattr(options, "json", None)
    if json and json != "-":
        check_output("json", json)
    if trace := getattr(options, "trace", None):
        check_output("trace", trace)
        if options.seeds > 1:
            raise InputError(
                f"'--trace' must be asked of one run of each design (got --seeds {options.seeds})"
            )


def golden(options: Namespace, emulate: Any) -> int:
    """Compare the emulator with what a real kernel did; `emulate` stands in for the emulator in tests."""
    from emulator.golden.command import golden_command

    return golden_command(options, emulate)


def replay(options: Namespace, emulate: Any) -> int:
    """Run a stored case again; `emulate` stands in for the emulator in tests."""
    from emulator.replay.command import replay_command

    return replay_command(options, emulate)


def litmus(options: Namespace, emulate: Any) -> int:
    """Run litmus tests; `emulate` stands in for the emulator in tests."""
    from emulator.litmus.command import litmus_command

    return litmus_command(options, emulate)


def stress(options: Namespace, emulate: Any) -> int:
    """Look for runs in which a design fails; `emulate` stands in for the workers in tests."""
    from emulator.stress.command import stress_command

    _check_places(options)
    return stress_command(options, emulate)


def sweep(options: Namespace, emulate: Any) -> int:
    """Run a sweep; `emulate` stands in for the processes that carry its runs in tests."""
    from emulator.sweep.command import sweep_command

    _check_places(options)
    return sweep_command(options, emulate)


# -- luf list, luf report ------------------------------------------------------------------------------------


def list_command(options: Namespace, _: Any) -> int:
    """Print what ships with luf: name and one line each; or, if it is asked for, what is declared as data."""
    sections: dict[str, Callable[[], Mapping[str, str]]] = {
        "machines": _machines,
        "workloads": _workloads,
        "designs": _designs,
        "rows": _row_kinds,
        "hooks": _hooks,
        "sysctls": _sysctls,
    }
    wanted = [options.what] if options.what else LISTED
    listed = {title: names() for title, names in sections.items() if title in wanted}
    width = max(len(name) for names in listed.values() for name in names)
    with reader_may_leave():
        for i, (title, names) in enumerate(listed.items()):
            sys.stdout.write("\n" * (i > 0) + title + "\n")
            for name, text in names.items():
                sys.stdout.write(f"  {name:<{width}}  " + text.replace("\n", "\n" + " " * (width + 4)) + "\n")
    return CLEAN


def _designs() -> Mapping[str, str]:
    from designs.shelf import names

    return names()


def _machines() -> Mapping[str, str]:
    from emulator.machine import machine_names

    return machine_names()


def _workloads() -> Mapping[str, str]:
    from workloads.catalogue import names

    return names()


def _row_kinds() -> Mapping[str, str]:
    from emulator.declared import row_kinds

    return row_kinds()


def _hooks() -> Mapping[str, str]:
    from emulator.declared import hooks

    return hooks()


def _sysctls() -> Mapping[str, str]:
    from emulator.declared import sysctls

    return sysctls()


def report_command(options: Namespace, _: Any) -> int:
    """Print the report of finished runs, or draw them; several results are put beside each other."""
    if options.schema:
        from emulator.published_schema import schema_text

        with reader_may_leave():
            sys.stdout.write(schema_text())
        return CLEAN
    if not options.folders:
        raise InputError("'FOLDER' must be given at least once (got none)")
    if len(options.folders) > 1:
        from emulator.beside.command import beside_command

        return beside_command(options)
    return _report_one(options)


def _report_one(options: Namespace) -> int:
    from emulator.output_file import output_of
    from emulator.repeats.result import Repeats, read_result

    (folder,) = options.folders
    found = read_result(folder)
    form = _form(several=isinstance(found, Repeats))
    if options.timeline and isinstance(found, Repeats):
        raise InputError(f"'--timeline' must be asked of one run of each design (got {folder!r})")
    if options.picture:
        with output_of("picture", options.picture):
            form.picture(found, options.picture)
    if options.html:
        from emulator.page.page import write_page

        with output_of("html", options.html):
            write_page(found, options.html)
    if options.table:
        from emulator.repeats.table import write_table

        with output_of("table", options.table):
            write_table(found.runs, options.table)
    with reader_may_leave():
        if options.timeline:
            _print_timeline(found)
        elif options.format == "lkp":
            from emulator.repeats.lkp import lkp_text

            sys.stdout.write(lkp_text(found.runs))
        elif not (options.picture or options.table or options.html):
            form.show(found, sys.stdout, DIRTY)
    return form.verdict(found, DIRTY).code


def _print_timeline(comparison: Any) -> None:
    from emulator.report.text import heading_text
    from emulator.report.timeline import ASCII_BLOCKS, BLOCKS, timeline_text

    blocks = BLOCKS if can_print(BLOCKS) else ASCII_BLOCKS
    sys.stdout.write(f"{heading_text(comparison)}\n")
    sys.stdout.write(
        timeline_text(comparison.runs, blocks)
        or "this result has no timeline: it was written by an older luf\n"
    )
    sys.stdout.write(of_comparison(comparison).line())
