"""The fuzzing campaign notices what it is there for, reaches every reader, and what it has found stays
mended.
"""

from __future__ import annotations

import json
import os
import random
import shlex
import signal
import sys
import time
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emulator.kept import Kept
from emulator.result import Series
from tests.campaigns import fuzz
from tests.campaigns.fuzzing import readers, short_runs, sound_files
from tests.campaigns.fuzzing.documents import Document, Raw, Twin, mutated, mutated_bytes
from tests.campaigns.fuzzing.inputs import Input, loaded, saved
from tests.campaigns.fuzzing.readers import Reader
from tests.campaigns.fuzzing.table import READERS
from tests.campaigns.fuzzing.worker import Limits, Room, no_picture, serve, tried
from tests.emulator.fixed import comparison, run

SOON = Limits(busy_s=0.3, waiting_s=1.5, bytes=1 << 29, in_earnest=0.0)
LINES_AND_PYTHON = ("words", "parameters", "python", "schedule", "stress")
NOTE = "luf: --leases 1 is the controlled mode: one CPU at a time, the run repeats exactly with --seed 1\n"
CORPUS = sorted(fuzz.CORPUS.glob("*.json"))


def planted(
    program,
    check=readers.nothing_more,
    data: bytes = b"x" * 64,
    corpus: Path | None = None,
    limits: Limits = SOON,
) -> fuzz.Campaign:
    """Run a campaign of one input whose reader is `program(arguments)`."""
    one = Input("planted", ("read", "f.toml"), {"f.toml": data}, "f.toml")
    campaign = fuzz.Campaign(
        {"planted": Reader("planted", lambda chance: one, check)},
        limits,
        lambda arguments, emulate: program(arguments),
        corpus,
    )
    campaign.run(time.monotonic() + 60, seed=1, jobs=1, most=1)
    return campaign


def says(text: str, code: int = 2):
    def program(arguments):
        sys.stderr.write(text)
        return code

    return program


def prints(text: str):
    return lambda arguments: sys.stdout.write(text) and 0


def raises(arguments):
    return {}["x"]


def endless(arguments):
    while True:
        pass


def greedy(arguments):
    return len(b"x" * (400 << 20)) * 0


@pytest.mark.parametrize(
    ("program", "kind"),
    [
        (raises, "exception"),
        (lambda arguments: 1 / 0, "exception"),
        (endless, "hang"),
        (lambda arguments: signal.pause(), "hang"),
        (lambda arguments: os._exit(7), "crash"),
        (lambda arguments: os.kill(os.getpid(), signal.SIGSEGV), "crash"),
        (greedy, "memory"),
        (says("luf: f.toml: Unable to allocate 3.64 TiB\n"), "memory"),
        (says("luf: the emulator failed\n", 3), "exit code 3"),
        (says("", 2), "not one sentence"),
        (says("luf: f.toml: one\nluf: two\n"), "not one sentence"),
        (says(f"{NOTE}luf: f.toml: one\nluf: two\n"), "not one sentence"),
        (says(f"luf: f.toml: one\n{NOTE}"), "not one sentence"),
        (says(NOTE), "not one sentence"),
        (says("luf: 'page' must be inside its region\n"), "names no file"),
        (says("luf: f.toml: a\x1b[2Jb\n"), "control characters"),
        (says(f"luf: f.toml: {'9' * 5000}\n"), "too long"),
        (says("RuntimeWarning: overflow\n", 0), "said"),
        (prints("name a\x7fb\n"), "control characters"),
    ],
)
def test_a_planted_fault_is_found(program, kind):
    """Whatever a reader can do wrong, once each."""
    limits = replace(SOON, busy_s=20.0, waiting_s=60.0) if program is greedy else SOON  # which takes its time
    assert kind in {found_kind for _, found_kind, _ in planted(program, limits=limits).found}


@pytest.mark.parametrize(
    "program",
    [
        says("luf: f.toml: 'pages' must be at least 1 (got -1)\n"),
        prints("clean\n"),
        says(NOTE, 0),
        says(f"{NOTE}luf: f.toml: 'pages' must be at least 1 (got -1)\n"),
        says("luf: a process needs 2,784 MiB, but this shell allows 1,404 MiB (ulimit -v)\n"),
    ],
)
def test_what_is_right_is_no_finding(program):
    """A sentence that names the file, and an input that is accepted."""
    assert planted(program).found == {}


def test_accepted_contradictions_are_found(monkeypatch):
    """What a check says of an accepted input; that of results sees a share of 150 %, a count below zero, a
    sum that is none.
    """
    found = planted(prints("fine\n"), lambda room, one: iter(["accepts 'page' of -1"])).found
    assert [key[1] for key in found] == ["contradiction"]

    series = Series(t_ns=[1], free_mib=[[1.0, 2.0]])
    bad = comparison(
        run("linux", vmstat={"pgfault": -3}, tlb_shootdowns=1, counters={"x": [1]}, series=series)
    )
    monkeypatch.setattr(readers, "read_result", lambda file: bad)
    program = prints("unmapped read-only     150.0 %      nan\n")
    one = Input("result", ("report", "r.json"), {"r.json": b"{}"}, "r.json")
    assert {
        each.text for each in tried(one, READERS["result"], SOON, lambda line, emulate: program(line))
    } == {
        "a share of 150.0 %",
        "prints nan",
        "accepts 'vmstat' below zero",
        "accepts 'tlb_shootdowns' that is not the sum of its CPUs",
        "accepts 'counters' of more or fewer CPUs than there are",
        "accepts 'series' of two lengths",
    }


def test_an_accepted_trace_is_looked_at_a_second_time():
    """A reader that lets everything pass: each array's odd value is named."""
    arrays, about = sound_files.trace()
    odd = {name: arrays[name].astype(np.int64) for name in arrays}
    odd["kind"][3], odd["count"][4], odd["page"][5], odd["thread"][0] = 9, 0x1_0000_0000, 99, -1
    files = {"t.npz": sound_files.archive(odd), "t.json": about}
    one = Input("trace", ("run", "linux", "--workload", "t.npz"), files, "t.npz")
    found = tried(one, READERS["trace"], SOON, lambda line, emulate: 0)
    assert {each.text.rpartition(" of ")[0] for each in found} == {
        "accepts 'kind'", "accepts 'count'", "accepts 'thread'", "accepts page 99 of a region",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "writer", "wrong", "said"),
    [
        ("litmus", "text_of", lambda text: text.rstrip().rpartition("\n")[0], "another test"),
        ("replay", "replay_text", lambda text: text.replace("seed =", "sed ="), "written it is refused"),
        ("replay", "replay_text", lambda text: f"why = 'x'\n{text}", "another case"),
    ],
)
def test_what_is_written_is_read_a_second_time(name, writer, wrong, said, monkeypatch):
    """A writer of litmus tests, or of replay files, that loses or changes something."""
    known = {"litmus": sound_files.litmus_tests()[0], "replay": sound_files.replays()[-1]}
    right = getattr(short_runs, writer)
    monkeypatch.setattr(short_runs, writer, lambda held: wrong(right(held)))
    file = {"litmus": "t.litmus", "replay": "r.toml"}[name]
    one = Input(name, (name, file), {file: known[name]}, file)
    found = tried(one, READERS[name], Limits(in_earnest=0.0))
    assert found
    assert all(each.kind == "contradiction" and said in each.text for each in found)


def test_no_worker_and_no_arena_is_started_for_an_input(monkeypatch):
    """Each command that runs in arenas gets as far as it would, and the stand-in answers."""
    monkeypatch.setattr(Kept, "_draw", no_picture)
    for place in ("emulator.stress.command.Pool", "emulator.stress.command.Arenas",
                  "emulator.litmus.run.Pool", "emulator.litmus.command.Arena",
                  "emulator.replay.command.Arenas"):  # fmt: skip
        monkeypatch.setattr(place, None)
    files = {"t.litmus": sound_files.litmus_tests()[0], "r.toml": sound_files.replays()[0]}
    for line in short_runs.LINES.splitlines():
        one = Input("stress", tuple(shlex.split(line)), files)
        assert accepted(one), line


@pytest.mark.parametrize("name", [name for name in READERS if name not in LINES_AND_PYTHON])
def test_every_reader_is_reached_with_sound_files(name, monkeypatch):
    """What inputs are made from is accepted as it is, by the program itself; so it is the odd part that is
    refused.
    """
    monkeypatch.setattr(Kept, "_draw", no_picture)
    monkeypatch.setattr(readers, "odd", lambda chance, document, others: document)
    monkeypatch.setattr(readers, "mutated_bytes", lambda chance, data, others: data)
    monkeypatch.setattr(sound_files, "odd_arrays", lambda chance, arrays: dict(arrays))
    made = [READERS[name].make(random.Random(number)) for number in range(8)]
    plain = [one for one in made if "--set" not in one.arguments][: 1 if name == "picture" else 4]
    assert [each for one in plain for each in tried(one, READERS[name], Limits(in_earnest=0.0))] == []
    for one in plain:
        assert accepted(one), one


def accepted(one: Input) -> bool:
    room = Room(Limits(), None)
    one.lay(room.folder)
    os.chdir(room.folder)
    code = room.luf(one.arguments).code
    room.close()
    return code in (0, 1)


def test_the_line_of_every_command_is_one_that_the_program_takes():
    """The command lines that are made odd are right: unmade, each is parsed."""
    from emulator.cli_arguments import parse

    for line in [*readers.LINES.splitlines(), *short_runs.LINES.splitlines()]:
        assert parse(shlex.split(line)).command


def test_users_files_are_sound():
    """The design and the workload that are made odd are accepted as they are."""
    files = {"d.py": sound_files.DESIGN.encode(), "w.py": sound_files.WORKLOAD.encode()}
    line = ("run", "d.py:Mine", *readers.RUN[2:], "--workload", "w.py:made", *readers.SMALL_MACHINE)
    assert tried(Input("python", line, files, "d.py"), READERS["python"], Limits(in_earnest=0.0)) == []


# -- documents -----------------------------------------------------------------------------------------------


def test_documents_are_written_as_they_were_read():
    """TOML and JSON of every sound file."""
    for document in (*sound_files.machines(), *sound_files.scripts(), *sound_files.replays()):
        assert tomllib.loads(document.encoded().decode()) == document.tree
    for document in (*sound_files.results(), *sound_files.recordings()):
        assert json.loads(document.encoded()) == document.tree


def test_what_no_library_would_write():
    """A key twice, a table without end, half a character, a value that is no number."""
    tree = {"a": 1, Twin("a"): 2, "deep": Raw("[" * 9), "nan": float("nan"), "half": "\ud800", "big": 10**400}
    text = Document(tree, "toml").encoded()
    assert text.startswith(b'a = 1\na = 2\ndeep = [[[[[[[[[\nnan = nan\nhalf = "\xed\xa0\x80"\nbig = 1000')
    assert Document([None, float("inf")], "json").encoded() == b"[null, Infinity]"


def test_chance_repeats():
    """The same stream of chance makes the same input, another one another."""
    for reader in READERS.values():
        first, same, other = (reader.make(random.Random(seed)) for seed in (5, 5, 6))
        assert saved(first, "") == saved(same, "")
        assert saved(first, "") != saved(other, "")


def test_mutations_change_something():
    """Nearly every one does."""
    document = sound_files.scripts()[0]
    trees = [mutated(random.Random(seed), document).encoded() for seed in range(50)]
    assert sum(tree == document.encoded() for tree in trees) < 5
    data = document.encoded()
    assert sum(mutated_bytes(random.Random(seed), data, [data]) == data for seed in range(50)) < 5


# -- what is kept --------------------------------------------------------------------------------------------


def test_a_finding_is_made_smaller_and_kept(tmp_path):
    """Of two kilobytes, the few bytes that matter are left; the file gives the input back."""

    def program(arguments):
        if b"needle" in Path("f.toml").read_bytes():
            raise KeyError("needle")
        return 0

    campaign = planted(program, data=b"x" * 1000 + b"needle" + b"y" * 1000, corpus=tmp_path)
    (file,) = tmp_path.iterdir()
    one = loaded(file.read_text())
    assert b"needle" in one.files["f.toml"]
    assert len(one.files["f.toml"]) < 64
    assert "KeyError in test_fuzz.py: program" in campaign.summary()


def test_the_exit_code_tells_of_findings(monkeypatch, tmp_path, capsys):
    """1 with a finding, 0 without; a line for each reader, and the number of inputs."""
    nothing = Input("planted", ("read",), {}, "")
    for found, code in ((raises, 1), (prints("fine\n"), 0)):
        monkeypatch.setattr(fuzz, "READERS", {"planted": Reader("planted", lambda chance: nothing)})
        monkeypatch.setattr(fuzz, "serve", _served_by(found))
        assert fuzz.main(["--minutes", "0.01", "--jobs", "1", "--corpus", str(tmp_path)]) == code
        assert f"{code} distinct findings" in capsys.readouterr().out


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_a_campaign_that_is_ended_keeps_what_it_found(ending, monkeypatch, tmp_path, capsys):
    """The second input ends it, fifty minutes early: the first one's finding is told, and in a file."""
    inputs = []

    def program(arguments):
        inputs.append(arguments)
        if len(inputs) == 1:
            raise KeyError("needle")
        os.kill(os.getppid(), ending)
        return 0

    one = Input("planted", ("read", "f.toml"), {"f.toml": b"x"}, "f.toml")
    monkeypatch.setattr(fuzz, "READERS", {"planted": Reader("planted", lambda chance: one)})
    monkeypatch.setattr(fuzz, "serve", _served_by(program))
    arguments = ["--minutes", "50", "--jobs", "1", "--corpus", str(tmp_path)]
    assert fuzz.main(arguments) == 128 + ending
    said = capsys.readouterr().out
    assert "KeyError in test_fuzz.py: program" in said
    assert said.endswith(" inputs, 1 distinct findings\n")
    (file,) = tmp_path.iterdir()
    assert loaded(file.read_text()) == one


def _served_by(program):
    return lambda pipe, known, limits, _: serve(pipe, known, limits, lambda line, emulate: program(line))


def test_what_was_found_stays_mended():
    """Every input of the corpus is answered as it should be."""
    worker = fuzz.Worker(READERS, Limits(in_earnest=0.0), None)
    found = {}
    for file in CORPUS:
        worker.ask(loaded(file.read_text(encoding="utf-8")))
        found[file.name] = [f"{each.kind}: {each.text}" for each in worker.answer()]
    worker.close()
    assert {name: each for name, each in found.items() if each} == {}
