"""Readers of what runs in an arena: litmus tests, replay files, schedules, the words of `luf stress`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from emulator.replay.file import read_replay, replay_text
from emulator.stress.job import tests
from tests.campaigns.fuzzing import readers, sound_files
from tests.campaigns.fuzzing.documents import ODD_TEXTS, odd_value
from tests.campaigns.fuzzing.inputs import Input
from tests.campaigns.fuzzing.readers import Chance, Reader
from workloads.litmus.laid_out import text_of
from workloads.litmus.sheet import lines_of, read_sheet
from workloads.litmus.shelf import litmus_tests
from workloads.litmus.test import Litmus, litmus_of

if TYPE_CHECKING:
    from tests.campaigns.fuzzing.worker import Room

LOOKED_AT = 3  # tests of a family
QUOTES = "'''"  # a replay file cannot keep them
LINES = """\
stress luf linux --only munmap* --seed 7 --seconds 5 --jobs 2
stress all --minutes 1 --without points --without states --first --json j.json
stress latr:ring=256 --check bounds --no-shrink --json - --out o --only churn
litmus t.litmus:pages=16,change=again --designs linux none:what=user --runs 3 --seed 7
litmus t.litmus munmap:pages=3 --designs luf --schedule walk:distance=30 --check states
litmus --list
run luf --workload t.litmus:pages=3 --leases 1 --schedule pct:depth=2,points=500 --set tlb.asid_slots=2
replay r.toml --times 3
replay r.toml --design none:what=user --shrink s.toml --seconds 1"""


# -- litmus tests --------------------------------------------------------------------------------------------


def litmus(chance: Chance) -> Input:
    """A litmus test, for `luf litmus` or as the workload of `luf run`."""
    known = sound_files.litmus_tests()
    files = {"t.litmus": readers.odd(chance, chance.choice(known), known)}
    line = ("litmus", "t.litmus", "--designs", "linux", "--runs", "2")
    if chance.random() < 0.4:
        line = (*readers.RUN, "--workload", "t.litmus")
    return Input("litmus", line, files, "t.litmus")


def litmus_is_one(room: Room, one: Input) -> Iterator[str]:
    """Laid out again it is the same test, of threads and rows; a small one runs."""
    for test in litmus_tests("t.litmus")[:LOOKED_AT]:
        text = text_of(test.sheet)
        again = litmus_of(read_sheet("again", lines_of("again", text)), test.name)
        if _meaning(again) != _meaning(test):
            yield "laid out and read again it is another test"
    if one.arguments[0] == "run":
        yield from readers.workload_is_one(room, one)


def _meaning(test: Litmus) -> tuple[Any, ...]:
    rows = [[thread.tolist() for thread in process.threads] for process in test.workload.processes]
    where = [(process.name, process.regions, process.cpus) for process in test.workload.processes]
    return test.machine, test.needs, test.forbidden, test.possible, where, rows


# -- replay files --------------------------------------------------------------------------------------------


def replay(chance: Chance) -> Input:
    """A replay file, run once or shrunk."""
    known = sound_files.replays()
    files = {"r.toml": readers.odd(chance, chance.choice(known), known)}
    more = ("--shrink", "s.toml", "--seconds", "1") * (chance.random() < 0.1)
    return Input("replay", ("replay", "r.toml", *more), files, "r.toml")


def replay_is_one(room: Room, one: Input) -> Iterator[str]:
    """Written and read again it is the same case, and the small one is a case, too."""
    recorded = read_replay("r.toml")
    if QUOTES not in recorded.case.test:
        text = replay_text(recorded)
        (room.folder / "again.toml").write_text(text, encoding="utf-8")
        done = room.luf(["replay", "again.toml"])
        if done.code == 2:
            yield f"written it is refused: {done.err.strip()}"
        elif replay_text(read_replay("again.toml")) != text:
            yield "written and read again it is another case"
    if (room.folder / "s.toml").exists() and (done := room.luf(["replay", "s.toml"])).code == 2:
        yield f"what it was shrunk to is refused: {done.err.strip()}"


# -- command lines -------------------------------------------------------------------------------------------


def schedule(chance: Chance) -> Input:
    """--schedule STRATEGY:key=value."""
    keys = ["distance", "depth", "points", "cpu", "seed", "window_ns", "tick_ns", "rules", "switches",
            "points_max", "disturbs", "wraps", "records"]  # fmt: skip
    odd = chance.choice([str(odd_value(chance)), chance.choice(ODD_TEXTS), "3,3", "=", "1" * 5_000])
    strategy = chance.choice(["walk", "pct", "surw", "starve", "hooks", "listed", "none", odd])
    given = [f"{chance.choice(keys)}={chance.choice([odd, '0', '1', '5', '70'])}" for _ in range(2)]
    how = f"{strategy}:{','.join(given[: chance.randrange(3)])}".replace("\x00", "")
    line = ("run", "linux", "--leases", chance.choice("12"), "--out", "o", *readers.SMALL_MACHINE,
            "--workload", "w.toml")  # fmt: skip
    if chance.random() < 0.5:
        line = ("litmus", "munmap:pages=16,access=try_load", "--designs", "linux", "--runs", "2")
    return Input("schedule", (*line, "--schedule", how), {"w.toml": readers.PLAIN_SCRIPT})


def stress(chance: Chance) -> Input:
    """Command lines of `luf stress` and of the others that run in arenas."""
    tests()  # what ships is read once, before workers are forked
    files = {"t.litmus": sound_files.litmus_tests()[0], "r.toml": sound_files.replays()[0]}
    return Input("stress", readers.odd_line(chance, LINES), files)


SHORT_RUNS = (
    Reader("litmus", litmus, litmus_is_one, share=8),
    Reader("replay", replay, replay_is_one, share=8),
    Reader("schedule", schedule, share=2, names_its_file=False),
    Reader("stress", stress, share=4, names_its_file=False),
)
