"""The command `luf`: run designs, compare them, report. A dispatcher; the work is done elsewhere.

Everything that takes long to import is imported by the command that needs it.
"""

from __future__ import annotations

import os
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpus.abi.numbers import LEASES_MAX
from emulator.cli_arguments import LISTED, parse
from emulator.ending import SIGNALLED, endings_raised
from emulator.sentences import answer, sentence
from emulator.streams import can_print, leave_at_once, reader_may_leave, ready_streams, settled, tell
from emulator.verdict import CLEAN, of_comparison

if TYPE_CHECKING:
    from emulator.machine import Machine
    from emulator.result import Comparison, Result
    from workloads import Workload


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
    if code > SIGNALLED:
        leave_at_once(code)
    return code


def main(arguments: list[str] | None = None, *, experiment: Any = None) -> int:
    """Run the command line and return its exit code; tests give an `experiment` of their own."""
    commands: dict[str, Callable[[Namespace, Any], int]] = {
        "compare": compare_command,
        "run": compare_command,
        "golden": golden,
        "list": list_command,
        "report": report_command,
    }
    ready_streams()
    try:
        with endings_raised():
            with reader_may_leave():  # --help
                options = parse(arguments)
            code = commands[options.command](options, experiment)
    except SystemExit as leaving:
        raise SystemExit(settled(int(leaving.code or 0))) from None
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 (the last resort: a sentence for the user, the traceback on request)
        code = answer(error)
    return settled(code)


# -- luf compare, luf run ------------------------------------------------------------------------------------


def compare_command(options: Namespace, experiment: Any) -> int:
    """Run the designs and leave a folder, a report and, if asked for, JSON."""
    from cpus.uncompiled import UNCOMPILED
    from emulator.host_facts import check_host
    from emulator.machine import load_machine
    from emulator.result import compare
    from emulator.run_folder import command_line, host, versions

    machine = load_machine(
        options.machine, scale=options.scale, cpus=options.cpus, overrides=dict(options.overrides)
    )
    options.scale = options.scale or machine.scale
    workload: str | Workload = options.workload
    if options.memory:
        machine, workload = _squeezed(machine, options)
    check_host(machine)
    _check_places(options)
    if options.leases is None:
        options.leases = 1 if UNCOMPILED else min(LEASES_MAX, len(os.sched_getaffinity(0)))
    if options.leases == 1:
        tell(
            "luf: --leases 1 is the controlled mode: one CPU at a time, the run repeats exactly "
            f"with --seed {options.seed}"
        )
    experiment = experiment or _experiment()
    _check_designs(options.designs, experiment.design_names())
    if options.debug_luf:
        _check_debug_luf(options.designs)
    runs = [_run(design, machine, workload, options, experiment) for design in options.designs]
    return _finish(compare(runs, command=command_line(), versions=versions(), host=host()), machine, options)


def _squeezed(machine: Machine, options: Namespace) -> tuple[Machine, Workload]:
    """Return the machine with memory as a share of the workload's working set (--memory), and the workload
    that was measured.

    That workload is what runs: made anew, one that goes by the machine's room would go by the new room, and
    the share mean nothing.
    """
    from emulator.experiment import squeezed, workload_of
    from emulator.machine import load_machine

    workload = workload_of(options.workload, options.scale, options.tokens, options.seed, machine)
    scale = squeezed(machine, workload, options.memory)
    return load_machine(
        options.machine, scale=scale, cpus=options.cpus, overrides=dict(options.overrides)
    ), workload


def _memory_text(options: Namespace) -> str:
    """Tell what --memory did: the machine's scale is no longer the workload's."""
    from workloads import is_recorded

    if not options.memory:
        return ""
    size = ", which is not scaled" if is_recorded(options.workload) else f" at scale 1/{options.scale:.4g}"
    return f"memory {options.memory * 100:.4g} %: of the working set of the workload{size}"


def _experiment() -> Any:
    import emulator.experiment as experiment

    return experiment


def _run(
    design: str, machine: Machine, workload: str | Workload, options: Namespace, experiment: Any
) -> Result:
    import msgspec

    from emulator.report.progress import Progress

    with Progress(design, width=max(map(len, options.designs))) as progress:
        run: Result = experiment.run_design(
            design,
            machine,
            workload,
            scale=options.scale,
            tokens=options.tokens,
            leases=options.leases,
            seed=options.seed,
            check=options.check,
            strict_ipi=options.strict_ipi,
            debug_luf=options.debug_luf,
            progress=progress,
        )
    return msgspec.structs.replace(run, memory_text=_memory_text(options))


def _finish(comparison: Comparison, machine: Machine, options: Namespace) -> int:
    import msgspec

    from emulator.machine import machine_table
    from emulator.output_file import write_output
    from emulator.report.text import heading_text, print_report
    from emulator.report.timeline import timeline_text
    from emulator.result import to_json
    from emulator.run_folder import new_run_folder, write_comparison

    config = {name: value for name, value in vars(options).items() if name != "overrides"}
    config |= {
        "scale": machine.scale,
        "workload_scale": options.scale,
        "cpus": machine.cpus,
        "set": dict(options.overrides),
    }
    config["machine"] = machine_table(machine)
    kind = "compare" if options.command == "compare" else _folder_name(options.designs[0])
    with new_run_folder(options.out, kind) as folder:
        comparison = msgspec.structs.replace(comparison, folder=str(folder.final))
        write_comparison(folder, comparison, config)
        _draw(comparison, folder.path / "picture.png")
        folder.write("timeline.txt", f"{heading_text(comparison)}\n{timeline_text(comparison.runs)}")
    with reader_may_leave():
        if options.json == "-":
            sys.stdout.write(to_json(comparison))
        else:
            print_report(comparison, sys.stdout)
    if options.json and options.json != "-":  # last: a full disk must not cost the report too
        write_output("json", options.json, to_json(comparison))
    return of_comparison(comparison).code


def _folder_name(design: str) -> str:
    """Name a run's folder after its design: `luf-sync=help`, or the class of a file."""
    return "-".join(part for part in design.split(":") if "/" not in part and not part.endswith(".py"))


def _draw(comparison: Comparison, file: Path) -> None:
    from emulator.report.plot import draw
    from emulator.report.timeline_plot import draw_timeline

    try:
        draw(comparison, file)
        draw_timeline(comparison.runs, file.with_name("timeline.png"))
    except (ValueError, OSError, RuntimeError) as error:  # a picture less must not cost the result
        file.unlink(missing_ok=True)
        tell(f"luf: no picture was drawn: {sentence(error)}")


def _check_designs(designs: list[str], known: Mapping[str, str]) -> None:
    import difflib

    for i, design in enumerate(designs):
        if design in designs[:i]:
            raise InputError(f"each design must be named once (got {design!r} twice)")
        parts = design.split(":")
        if design in known:
            continue
        if len(parts) > 1 and parts[0] in known:
            of_it = ", ".join(name for name in known if name.split(":")[0] == parts[0])
            raise InputError(f"'DESIGN' must be one of {of_it} (got {design!r})")
        if len(parts) > 1:
            while len(parts) > 2 and "=" in parts[-1]:
                parts.pop()
            file = ":".join(parts[:-1])
            if not Path(file).is_file():
                raise InputError(
                    f"'DESIGN' must be a name or FILE.py:CLASS (got {design!r}, and "
                    f"there is no file {file!r})"
                )
        else:
            close = difflib.get_close_matches(design, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            plain = ", ".join(name for name in known if ":" not in name)
            raise InputError(f"'DESIGN' must be one of {plain}, or FILE.py:CLASS (got {design!r}){hint}")


def _check_debug_luf(names: list[str]) -> None:
    from designs import design
    from emulator.build import check_debug_luf

    for name in names:
        check_debug_luf(design(name))


def _check_places(options: Namespace) -> None:
    from emulator.output_file import can_hold, check_output

    out = Path(options.out)
    there = next((path for path in (out, *out.absolute().parents) if path.exists()), Path("/"))
    if not can_hold(there):
        raise InputError(f"'--out' must be a folder that can be written to (got {options.out!r})")
    if options.json and options.json != "-":
        check_output("json", options.json)


def golden(options: Namespace, emulation: Any) -> int:
    """Compare the emulator with what a real kernel did; `emulation` stands in for the emulator in tests."""
    from emulator.golden.command import golden_command

    return golden_command(options, emulation)


# -- luf list, luf report ------------------------------------------------------------------------------------


def list_command(options: Namespace, experiment: Any) -> int:
    """Print what ships with luf: name and one line each; or, if it is asked for, what is declared as data."""
    sections: dict[str, Callable[[], Mapping[str, str]]] = {
        "machines": _machines,
        "workloads": _workloads,
        "designs": lambda: (experiment or _experiment()).design_names(),
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


def report_command(options: Namespace, experiment: Any) -> int:
    """Print the report of a finished run, or draw it."""
    from emulator.report.text import heading_text, print_report
    from emulator.result import read_comparison

    comparison = read_comparison(options.folder)
    if options.picture:
        from emulator.report.plot import draw

        draw(comparison, Path(options.picture))
    with reader_may_leave():
        if options.timeline:
            from emulator.report.timeline import ASCII_BLOCKS, BLOCKS, timeline_text

            blocks = BLOCKS if can_print(BLOCKS) else ASCII_BLOCKS
            sys.stdout.write(f"{heading_text(comparison)}\n")
            sys.stdout.write(
                timeline_text(comparison.runs, blocks)
                or "this result has no timeline: it was written by an older luf\n"
            )
            sys.stdout.write(of_comparison(comparison).line())
        elif not options.picture:
            print_report(comparison, sys.stdout)
    return of_comparison(comparison).code
