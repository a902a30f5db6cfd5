"""A forked process that hands inputs to the command line, one after the other, each in an empty folder and
within limits of memory and time; what came of each goes back through a pipe.

The engine is not started: the run is taken at the door of `build`, machine, workload and design in hand, and
answered with fixed figures. `in_earnest` runs it.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.campaigns.fuzzing import sound_files
from tests.campaigns.fuzzing.inputs import Input
from tests.campaigns.fuzzing.judge import Finding, Said, judged, skeleton
from tests.campaigns.fuzzing.readers import Reader

Program = Callable[..., int]
PR_SET_PDEATHSIG = 1
STRESS_JOBS = 3
FIGURES = ("pgfault", "nr_tlb_remote_flush", "unmap_ro")  # counters that litmus tests here ask for
OURS = [f"/{room}/" for room in ("cpus", "allocator", "designs", "workloads", "emulator")]


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one input: seconds of this process's time, and of the clock for one that waits; bytes beyond what
    the worker has when it begins; the share of accepted inputs that are run in earnest.
    """

    busy_s: float = 5.0
    waiting_s: float = 60.0
    bytes: int = 1 << 30
    in_earnest: float = 0.02


class TooLong(BaseException):
    """The input has used up its time."""


class Captured(BaseException):
    """The run would be built now."""


@dataclass(slots=True)
class Seen:
    """Machines and workloads that were about to be built."""

    machines: list[Any] = field(default_factory=list)
    workloads: list[Any] = field(default_factory=list)


def stand_in(seen: Seen) -> Callable[..., Any]:
    """Give what runs in the place of the emulator, whatever a command hands it: an experiment (with what
    shows its progress if a report is wanted), a case, or a campaign with its portfolio. Each gets as far as
    `build`, then fixed figures.
    """
    import emulator.experiment as real
    from emulator.litmus.verdict import Run
    from emulator.replay.case import Case
    from emulator.replay.seen import Seen as Shown
    from emulator.stress.campaign import Campaign
    from emulator.stress.outcome import FINISHED, VIOLATED, Outcome
    from emulator.stress.task import Tried
    from tests.emulator.fixed import REUSE, run

    def captured(machine: Any, workload: Any, *_: Any) -> Any:
        seen.machines.append(machine)
        seen.workloads.append(workload)
        raise Captured

    def reach_build(experiment: Any, progress: Any = None) -> None:
        built, real.build = real.build, captured  # type: ignore[assignment]
        try:
            experiment.run(progress=progress)
        except Captured:
            pass
        finally:
            real.build = built

    def stress(campaign: Campaign, portfolio: Any) -> None:
        """Do some jobs, of which the first finds something."""
        for number in range(STRESS_JOBS):
            job = portfolio.next()
            reach_build(job.experiment(campaign.reference))
            outcome = Outcome(FINISHED) if number else Outcome(VIOLATED, violations=[REUSE])
            campaign.add(Tried(job, outcome, "" if number else "reuse: load"), number)

    def emulate(what: Any, more: Any = None) -> Any:
        if isinstance(what, Campaign):
            return stress(what, more)
        if isinstance(what, Case):
            reach_build(what.experiment())
            schedule = what.schedule
            shown = "reuse: load" if "munmap" in what.test else ""
            return Shown(shown, "5d0c", switches=schedule.switches if schedule else ())
        reach_build(what, more)
        if more is None:
            return Run(dict.fromkeys(FIGURES, 1))
        machine, workload = seen.machines[-1], seen.workloads[-1]
        texts = {"machine_text": machine.summary(), "scale_text": machine.scaled_summary()}
        about = {"machine": machine.name, "overrides": machine.overrides, "scale": machine.scale, **texts}
        return run(what.design.name, workload=workload.name, workload_text=workload.description, **about)

    return emulate


class Room:
    """An empty folder in which one input is tried; `said` is what came of it first."""

    def __init__(self, limits: Limits, program: Program | None):
        self.limits, self.program = limits, program
        self.folder = Path(tempfile.mkdtemp(prefix="luf-fuzz-"))
        self.seen = Seen()
        self.said = Said(0, "", "")
        self.in_earnest = False

    def luf(self, arguments: Sequence[str], in_earnest: bool = False) -> Said:
        """Give a command line to the program, in this process."""
        from emulator.cli import main

        sys.argv = ["luf", *arguments]
        emulate: Any = None if in_earnest else stand_in(self.seen)
        if [*arguments[:1]] == ["golden"]:
            emulate = sound_files.mirrored(str(self.folder / "rec"))
        program = self.program or main
        streams: list[str] = []
        before = _memory("VmRSS")
        with _streams(streams), _timed(self.limits.busy_s):
            code, trouble = _ended(lambda: program([*arguments], emulate=emulate))
        out, err = (text.replace(str(self.folder), "FOLDER") for text in streams)
        return Said(code, out, err, trouble, _memory("VmHWM") - before)

    def close(self) -> None:
        os.chdir("/")
        shutil.rmtree(self.folder, ignore_errors=True)


def tried(one: Input, reader: Reader, limits: Limits, program: Program | None = None) -> list[Finding]:
    """Try an input, in this process, and judge what came of it."""
    room = Room(limits, program)
    try:
        one.lay(room.folder)
        os.chdir(room.folder)
        room.said = room.luf(one.arguments)
        files = (
            [name.rpartition("/")[2] for name in one.files] if one.touched and reader.names_its_file else []
        )
        found = list(judged(room.said, files, limits.bytes // 2))
        if room.said.code >= 3:
            found = [Finding(each.kind, _where(room, one) or each.place, each.text) for each in found]
        if not found and room.said.code in (0, 1):
            room.in_earnest = random.Random(one.size()).random() < limits.in_earnest
            found += [Finding("contradiction", skeleton(text), text) for text in reader.check(room, one)]
        return found
    finally:
        room.close()


def _where(room: Room, one: Input) -> str:
    """Repeat what has failed with LUF_DEBUG=1, and find the place in the traceback."""
    os.environ["LUF_DEBUG"] = "1"
    try:
        lines = room.luf(one.arguments).err.splitlines()
    finally:
        del os.environ["LUF_DEBUG"]
    frames = [line for line in lines if line.startswith('  File "') and any(room in line for room in OURS)]
    errors = [line for line in lines if line and not line.startswith((" ", "luf:", "Traceback"))]
    if not frames:
        return ""
    file, _, function = frames[-1].split('"')[1], "", frames[-1].rpartition(" in ")[2]
    return f"{errors[-1].partition(':')[0] if errors else ''} in {Path(file).name}: {function}"


def _ended(call: Callable[[], int]) -> tuple[int, str]:
    """Give the exit code, and the exception with its place if there was one."""
    try:
        return call(), ""
    except SystemExit as left:
        return (left.code if isinstance(left.code, int) else 1), ""
    except BaseException as error:  # noqa: BLE001 (that is what is looked for)
        kind = "hang" if isinstance(error, TooLong) else type(error).__name__
        return -1, f"{kind} in {place(error)}"


def place(error: BaseException) -> str:
    """Give `file: function` of the innermost frame that is ours."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [one for one in frames if any(room in one.filename for room in OURS)] or frames
    return f"{Path(ours[-1].filename).name}: {ours[-1].name}"


@contextmanager
def _streams(said: list[str]) -> Iterator[None]:
    """Let files take what is written to stdout and stderr, by Python or by number; give it to `said`."""
    kept = sys.stdout, sys.stderr
    numbers = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        try:
            yield
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            sys.stdout, sys.stderr = kept
            for number, back in enumerate(numbers, 1):
                os.dup2(back, number)
                os.close(back)
            for stream in (out, err):
                stream.seek(0)
                said.append(stream.read().decode("utf-8", "backslashreplace"))


@contextmanager
def _timed(seconds: float) -> Iterator[None]:
    def late(number: int, frame: Any) -> None:
        raise TooLong

    previous = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, seconds, 1.0)  # again, should somebody swallow it
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)


def _memory(what: str) -> int:
    """Give the memory that this process has (VmRSS), or has had at most since it was last asked (VmHWM)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith(what))
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return int(line.split()[1]) << 10


def serve(pipe: Any, readers: Mapping[str, Reader], limits: Limits, program: Program | None) -> None:
    """Be a worker: take (reader, stream of chance) or an Input, answer with what was found, until the pipe
    ends.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setpgid(0, 0)  # a signal to the campaign's group is not an input's
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    warnings.simplefilter("ignore", SyntaxWarning)  # of Python, about a user's file
    faulthandler.disable()  # a crash is told by the exit code
    _no_pictures()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + limits.bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while (asked := _next(pipe)) is not None:
        one = asked if isinstance(asked, Input) else made(readers, *asked)
        pipe.send(tried(one, readers[one.reader], limits, program))


def _next(pipe: Any) -> Any:
    try:
        return pipe.recv()
    except EOFError:
        return None


def made(readers: Mapping[str, Reader], name: str, stream: str) -> Input:
    """Make an input anew: the same reader and stream give the same one."""
    return readers[name].make(random.Random(f"{name} {stream}"))


def no_picture(*_: Any) -> None:
    """Draw only what `luf report --picture` asks for: a picture takes longer than a hundred inputs."""


def _no_pictures() -> None:
    from emulator.kept import Kept

    Kept._draw = no_picture  # type: ignore[method-assign]
