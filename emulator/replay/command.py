"""The command `luf replay`: run a stored case again, as often as asked, and say whether it shows what it did
when it was stored.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from designs.ready import ReadyDesign
from emulator.output_file import check_output, write_output
from emulator.replay.case import Case
from emulator.replay.file import Recorded, design_digest, experiment_of, read_replay, replay_text
from emulator.replay.seen import Seen, runner
from emulator.report.proof import violation_text
from emulator.streams import reader_may_leave
from emulator.stress.arena import Arenas
from emulator.stress.shrink import Run, shrink
from emulator.verdict import CLEAN, DIRTY, Verdict
from inputs.file import shown


def replay_command(options: Namespace, emulate: Run | None) -> int:
    """Replay one file; `emulate` stands in for the emulator in tests."""
    recorded = read_replay(options.file)
    if options.design:
        recorded = replace(
            recorded, case=replace(recorded.case, design=options.design), fingerprint="", design_text=""
        )
    design = experiment_of(options.file, recorded.case).design  # before anything is compiled
    if options.shrink:
        check_output("shrink", options.shrink)
    with _running(design, emulate) as run:
        runs = [run(recorded.case) for _ in range(options.times)]
        told = _told(options.file, recorded, runs)
        if options.shrink and runs[0].signature:
            told.append(_shrunk(recorded, run, runs[0].signature, options))
    with reader_may_leave():
        sys.stdout.write("".join(told))
    return DIRTY if any(seen.signature for seen in runs) else CLEAN


@contextmanager
def _running(design: ReadyDesign, emulate: Run | None) -> Iterator[Run]:
    """Give what runs a case, in processes that are used again: what ran there before does not matter."""
    if emulate:
        yield emulate
        return
    with Arenas() as arenas:
        yield runner(arenas, design)


def _shrunk(recorded: Recorded, run: Run, signature: str, options: Namespace) -> str:
    """Shrink the case, write it, and say how large it is."""
    found = shrink(recorded.case, run, signature, seconds=options.seconds)
    if found is None:
        return "shrunk    no: the same case did not show it again\n"
    small = replace(
        recorded, case=found.case, signature=found.seen.signature, fingerprint=found.seen.fingerprint
    )
    write_output("shrink", options.shrink, replay_text(small))
    size = ", ".join(f"{count:,} {what}" for what, count in found.size.items())
    more = "" if found.complete else "; the time was over before all was tried"
    return f"shrunk    {size}, after {found.runs:,} runs: {shown(options.shrink)}{more}\n"


def _told(file: str, recorded: Recorded, runs: list[Seen]) -> list[str]:
    """Give what is printed: which case it is, the first proof, how it compares with what was stored."""
    case, first = recorded.case, runs[0]
    shows = next((seen for seen in runs if seen.signature), first)
    lines = [f"case      {shown(file)}: {_about(case)}\n"]
    if recorded.why:
        lines.append(f"          {recorded.why}\n")
    if recorded.design_text and design_digest(case.design) != recorded.design_text:
        lines.append("          the design's file has changed since this case was written\n")
    if shows.violation:
        lines.append("\n" + violation_text(shows.violation, shows.violation.get("events", ())) + "\n")
    elif shows.sentence:
        lines.append(f"\n{shows.sentence}\n\n")
    for signature in dict.fromkeys(seen.signature for seen in runs):
        count = sum(seen.signature == signature for seen in runs)
        lines.append(f"seen      {count:,} of {len(runs):,}: {signature or 'nothing'}\n")
    lines.append(f"events    {_events(recorded, runs)}\n")
    if recorded.signature and any(seen.signature not in ("", recorded.signature) for seen in runs):
        lines.append(f"stored    another finding: {recorded.signature}\n")
    code = DIRTY if shows.signature else CLEAN
    word = "clean" if code == CLEAN else "not clean"
    lines.append(Verdict(code, f"{word}, exit code {code}").line(10) + "\n")
    return lines


def _about(case: Case) -> str:
    what = "a litmus test" if case.test else f"{case.workload} on {case.machine}"
    schedule = case.schedule
    if schedule is None:
        how = f"seed {case.seed}"
    elif schedule.strategy == "listed":
        count = len(schedule.switches)
        how = f"{count} hand-over{'s' * (count != 1)}"
    else:
        how = str(schedule)
    return f"{case.design}, {what}, {how}"


def _events(recorded: Recorded, runs: list[Seen]) -> str:
    """Say whether all runs did the same, and whether it is what was stored."""
    first = runs[0]
    if any((seen.signature, seen.fingerprint) != (first.signature, first.fingerprint) for seen in runs):
        return f"not the same in all of {len(runs):,} runs"
    same = "the same in all runs" if len(runs) > 1 else "of one run"
    if not recorded.fingerprint:
        return same
    if first.fingerprint == recorded.fingerprint:
        return f"{same}, and as stored, to the event"
    return f"{same}, and not as stored: design or emulator have changed since"
