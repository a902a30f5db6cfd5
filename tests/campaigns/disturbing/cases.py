"""The matrix: which command is disturbed by what, at which moment, and how it may end."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.campaigns.disturbing.afterwards import BALLAST, Ending
from tests.campaigns.disturbing.moments import MOMENTS, running_golden
from tests.campaigns.disturbing.program import LUF, Places, Program

SMALL = ("--cpus", "2", "--scale", "4096", "--tokens", "1", "--out", "o")
COMMANDS: dict[str, tuple[str, ...]] = {
    "compare": ("compare", "linux", "luf", *SMALL),
    "run": ("run", "linux", *SMALL),
    "golden": ("golden", "--micro", "--only", "c_mprotect_rw_ro", "--jobs", "1", "--json", "g.json"),
}
OWN_DESIGN = """
from allocator.tlb_flush import flush_tlb_page
from designs.design import Design, hook

NUMBER = {number}  # another one each time: this is compiled anew

@hook("pte_cleared")
def mine(ram, cpu, mm, vpn, pte, object):
    flush_tlb_page(ram, cpu, mm, vpn)
    return NUMBER - NUMBER

class Mine(Design):
    \"\"\"to be compiled\"\"\"

    name = "mine"
    hooks = (mine,)
"""
CLEAN, DIRTY, BAD_INPUT, FAILED = 0, 1, 2, 3
NOBODY = 65_534
Act = Callable[[Program], bool]  # False: there was nothing to do it to


@dataclass(frozen=True, slots=True)
class Case:
    """One cell: `act` disturbs the command when its moment is there; `lay` prepares its folders before."""

    name: str
    arguments: Sequence[str]
    ending: Ending
    act: Act | None = None
    lay: Callable[[Places], None] | None = None
    tidy: Callable[[Places], None] | None = None
    environment: Mapping[str, str | None] = field(default_factory=dict)  # None: not there
    prepare: Callable[[], None] | None = None
    luf: Sequence[str] = LUF
    stdout: str = ""
    stderr: str = ""


def cases(number: int = 1) -> Iterator[Case]:
    """Give every case; `number` makes the design that is compiled another one each time."""
    yield from _signals(number)
    yield from _disks()
    yield from _limits()
    yield from _surroundings()


# -- signals -------------------------------------------------------------------------------------------------

SENT: dict[str, tuple[int, ...]] = {
    "KILL": (signal.SIGKILL,), "STOP+CONT": (signal.SIGSTOP, signal.SIGCONT), "TERM": (signal.SIGTERM,),
    "INT": (signal.SIGINT,), "HUP": (signal.SIGHUP,), "QUIT": (signal.SIGQUIT,),
}  # fmt: skip
TARGETS: dict[str, Callable[[Program], list[int]]] = {
    "supervisor": lambda program: [program.process.pid],
    "group": lambda program: [-program.process.pid],
    "cpu": Program.cpus,
    "janitor": Program.janitors,
}


def _signals(number: int) -> Iterator[Case]:
    for command, arguments in COMMANDS.items():
        for moment in MOMENTS:
            if (moment == "second" and command != "compare") or (moment == "compile" and command == "golden"):
                continue
            for target in TARGETS:
                if target in ("cpu", "janitor") and moment not in ("run", "second"):
                    continue
                for word in SENT:
                    yield _signal(command, arguments, moment, target, word, number)
                    number += 1


def _signal(command: str, arguments: Sequence[str], moment: str, target: str, word: str, number: int) -> Case:
    when = running_golden if command == "golden" and moment == "run" else MOMENTS[moment]

    def act(program: Program) -> bool:
        if not program.reaches(when):
            return False
        hit = TARGETS[target](program)[:1]
        for pid in hit:
            for one in SENT[word]:
                with suppress(ProcessLookupError):
                    os.kill(pid, one) if pid > 0 else os.killpg(-pid, one)
        return bool(hit)

    def lay(places: Places) -> None:
        (places.work / "own.py").write_text(OWN_DESIGN.format(number=number + os.getpid()), encoding="utf-8")

    line = [*arguments]
    if moment == "compile":
        line[1] = "own.py:Mine"
    keeps = moment in ("second", "report") and command != "golden" and word not in ("KILL", "STOP+CONT")
    return Case(f"{word} {target} {moment} {command}", line, _ending(word, target, moment, keeps), act, lay)


def _ending(word: str, target: str, moment: str, keeps: bool) -> Ending:
    """Say how a command may end that got this signal. Clean is always right: the signal may have come too
    late.
    """
    if word == "STOP+CONT" or target == "janitor":
        return Ending(frozenset({CLEAN}))
    if target == "cpu":
        ignored = word in ("TERM", "INT")
        return Ending(
            frozenset({CLEAN} if ignored else {FAILED}), says=not ignored, keeps=keeps and moment == "second"
        )
    code = 128 + int(SENT[word][0])
    if word == "KILL":  # nothing is said: the kernel ends it
        return Ending(frozenset({code}), says=None, swept=True)
    # before Python's handlers are there, the kernel ends it, too
    return Ending(frozenset({code}), says=None if moment == "start" else True, keeps=keeps)


# -- full disks ----------------------------------------------------------------------------------------------


def _disks() -> Iterator[Case]:
    """A small disk of its own is full at a moment; results, temporary files, or --json lie on it."""
    for moment in ("before", "start", "run", "second", "audit", "report"):
        for what in ("out", "tmp", "json"):
            command = "compare" if moment == "second" else "run"
            line = [*COMMANDS[command]]
            environment: dict[str, str | None] = {}
            if what == "out":
                line[line.index("o")] = "disk/o"
            if what == "json":
                line += ["--json", "disk/j.json"]
            if what == "tmp":
                environment["TMPDIR"] = "disk/"
            prints = what != "tmp" and moment in ("audit", "report")
            ending = Ending(frozenset({CLEAN, BAD_INPUT, FAILED}), says=True, prints=prints)
            yield Case(
                f"disk full at {moment}: {what}",
                line,
                ending,
                _filler(moment),
                _mounted,
                _unmounted,
                environment,
            )


def _mounted(places: Places) -> None:
    disk = places.work / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], check=True, capture_output=True)


def _unmounted(places: Places) -> None:
    subprocess.run(["umount", "-l", places.work / "disk"], check=False, capture_output=True)


def _filler(moment: str) -> Act:
    def act(program: Program) -> bool:
        there = moment == "before" or program.reaches(MOMENTS[moment])
        fill(program.places.work / "disk")
        return there

    return act


def fill(disk: Path) -> None:
    """Leave no byte on it."""
    with suppress(OSError), open(disk / BALLAST, "wb", buffering=0) as ballast:
        for size in (1 << 16, 1 << 12, 1):
            with suppress(OSError):
                while ballast.write(bytes(size)):
                    pass


# -- limits --------------------------------------------------------------------------------------------------


def _limits() -> Iterator[Case]:
    for name, limit, values in (
        ("nofile", resource.RLIMIT_NOFILE, (8, 24, 40, 64, 128)),
        ("memory", resource.RLIMIT_AS, (256 << 20, 512 << 20, 1 << 30, 3 << 30)),
        ("fsize", resource.RLIMIT_FSIZE, (0, 1, 4096, 65_536)),
        ("core", resource.RLIMIT_CORE, (0,)),
        ("stack", resource.RLIMIT_STACK, (1 << 20,)),
        ("data", resource.RLIMIT_DATA, (128 << 20, 512 << 20)),
    ):
        for value in values:
            for command in ("run", "compare", "golden"):
                ending = Ending(frozenset({CLEAN, BAD_INPUT, FAILED}), says=True)
                yield Case(
                    f"{name} {value} {command}", COMMANDS[command], ending, prepare=_limiter(limit, value)
                )
    ending = Ending(frozenset({CLEAN, BAD_INPUT, FAILED}), says=True)
    for value in (1, 3):
        luf = ("prlimit", f"--nproc={value}", *another_user(LUF))
        yield Case(f"nproc {value} another user", COMMANDS["run"], ending, lay=_given_away, luf=luf)


def _limiter(limit: int, value: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(limit, (value, value))


# -- surroundings --------------------------------------------------------------------------------------------


def another_user(luf: Sequence[str]) -> Sequence[str]:
    """Be nobody, who may read everything: the sources may lie in a folder of root."""
    caps = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *caps, *luf)


def _given_away(places: Places) -> None:
    for folder in (places.base, places.work, places.temporary, places.home):
        os.chown(folder, NOBODY, NOBODY)


def _surroundings() -> Iterator[Case]:
    clean = Ending(frozenset({CLEAN}))
    refused = Ending(frozenset({BAD_INPUT}), says=True)
    run = COMMANDS["run"]
    for command, line in COMMANDS.items():
        yield Case(f"no HOME {command}", line, clean, environment={"HOME": None})
        yield Case(f"HOME that is not there {command}", line, clean, environment={"HOME": "/nonexistent"})
        posix = {"LC_ALL": "POSIX", "LANG": None, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        yield Case(f"no UTF-8 {command}", line, clean, environment=posix)
        yield Case(f"another user {command}", line, clean, lay=_given_away, luf=another_user(LUF))
        for streams in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
            luf = ("/bin/sh", "-c", f'exec "$@" {streams}', "sh", *LUF)
            yield Case(f"{streams} {command}", line, clean, luf=luf)
        full = Ending(frozenset({BAD_INPUT}), says=True, keeps=command != "golden")
        yield Case(f">/dev/full {command}", line, full, stdout="/dev/full")
        yield Case(f"2>/dev/full {command}", line, clean, stderr="/dev/full")
        yield Case(
            f"both full {command}",
            line,
            Ending(frozenset({BAD_INPUT})),
            stdout="/dev/full",
            stderr="/dev/full",
        )
    told = Ending(frozenset({BAD_INPUT}), says=True)  # or clean, where Python takes it for UTF-8
    yield Case("a letter that is not in ASCII", [*run, "--set", "name=é"], told, environment=posix)
    yield Case("an undecodable folder", [*run[:-1], "o\udcff"], clean)
    yield Case("a refusal, 2>/dev/full", ["run", "lfu"], Ending(frozenset({BAD_INPUT})), stderr="/dev/full")
    yield Case("--version >/dev/full", ["--version"], refused, stdout="/dev/full")
    yield Case(
        "--out is a dangling link", run, refused, lay=lambda places: places.out.symlink_to("nowhere/x")
    )
    yield Case(
        "--out is a file",
        run,
        refused,
        lay=lambda places: places.out.write_text("mine", encoding="utf-8") and None,
    )
    yield Case("--out is read-only", run, refused, lay=_read_only, tidy=_unmounted_out)
    yield Case(
        "latest is somebody's folder",
        run,
        Ending(frozenset({CLEAN})),
        lay=lambda places: (places.out / "latest").mkdir(parents=True),
    )
    yield Case("TMPDIR is not there", run, refused, environment={"TMPDIR": "/nonexistent"})


def _read_only(places: Places) -> None:
    places.out.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", places.out], check=True, capture_output=True)


def _unmounted_out(places: Places) -> None:
    subprocess.run(["umount", "-l", places.out], check=False, capture_output=True)


def possible(case: Case) -> str:
    """Say why a case cannot be tried here; nothing if it can."""
    if case.lay in (_mounted, _read_only, _given_away) and os.getuid() != 0:
        return "needs root"
    if case.luf[0] in ("setpriv", "prlimit") and not shutil.which("setpriv"):
        return "needs setpriv"
    return ""
