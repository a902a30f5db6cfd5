"""Replay files: what is written is what is read, mistakes are sentences, the command says what it saw, and
the cases that are stored here show what they did when they were written.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from designs import shelf
from emulator.cli import main
from emulator.replay.case import Case
from emulator.replay.file import Recorded, ReplayError, design_digest, read_replay, replay_text
from emulator.replay.seen import Seen, runner
from emulator.schedule import Schedule
from emulator.stress.arena import Arena
from workloads.litmus.laid_out import text_of
from workloads.litmus.shelf import litmus_test

STORED = sorted((Path(__file__).parent / "replays").glob("*.toml"))
TEST = text_of(litmus_test("munmap").sheet)
LISTED = Schedule("listed", switches=tuple((n % 3, 7 * n, 1) for n in range(20)), seed=4)
CASES = {
    "a litmus test": Case("none:what=user", test=TEST, seed=7),
    "a schedule": Case("luf", test=TEST, schedule=LISTED),
    "few hand-overs": Case("luf", test=TEST, schedule=replace(LISTED, switches=LISTED.switches[:2])),
    "no hand-overs": Case("luf", test=TEST, schedule=Schedule("listed")),
    "a walk": Case("luf", test=TEST, schedule=Schedule(distance=17, seed=5)),
    "a workload": Case(
        "latr", workload="churn", machine="guest-8cpu", cpus=4, scale=32, tokens=3, check="off",
        debug_luf=True, overrides={"sysctl.numa_balancing": 0, "tlb.pcid": False},
    ),
}  # fmt: skip


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_is_written_is_what_was_meant(case, tmp_path):
    """Case, signature, fingerprint, and a word about it, odd characters or not."""
    recorded = Recorded(case, "reuse: load", "5d0c", "", 'why it "was"\nstored: \u2713')
    text = replay_text(recorded)
    again = read_replay(written(tmp_path / "a.toml", text))
    assert again == replace(recorded, case=replace(case, test=again.case.test))
    assert again.case.test.split() == case.test.split()
    assert replay_text(again) == text


def test_few_hand_overs_stand_on_one_line():
    """And more on several, as people write them."""
    assert "switches = [[0, 0, 1], [1, 7, 1]]\n" in replay_text(Recorded(CASES["few hand-overs"]))
    assert replay_text(Recorded(CASES["a schedule"])).count("],\n") == 3


GOOD = f"design = 'luf'\ntest = '''\n{TEST}'''\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("design = ", "a.toml: is not TOML"),
        ("test = 'a'", "a.toml: 'design' must be given: a name, or FILE.py:CLASS"),
        ("design = 'luf'", "a.toml: one of 'test', 'litmus', 'workload' must be given (got none)"),
        (GOOD + "litmus = 'munmap'", "must be given (got test, litmus)"),
        (GOOD + "sede = 4", "a.toml: a key must be one of why, design, design_text, test, litmus, workload"),
        (GOOD + "seed = 'a'", "a.toml: 'seed' must be a whole number (got 'a')"),
        (GOOD + "seed = true", "a.toml: 'seed' must be a whole number (got True)"),
        (GOOD + "switches = []", "a.toml: 'switches' must have a 'schedule' with them, \"listed\""),
        (GOOD + "schedule = 'run'", "a.toml: 'schedule' must be one of walk, pct, "),
        (GOOD + "schedule = 'listed'\nswitches = [1]", "a.toml: 'switches' must be triples of"),
        (GOOD + "schedule = 'listed'\nswitches = [[1, 'a', 2]]", "a.toml: 'switches' must be triples of"),
        ("design = 'luf'\nworkload = 'churn'", "a.toml: 'machine' must be given with 'workload'"),
        ("design = 'luf'\nlitmus = 'munmpa'", "a.toml: a litmus test must be a file, FILE.litmus, or one of"),
    ],
)  # fmt: skip
def test_mistakes_are_sentences(text, sentence, tmp_path, monkeypatch, capsys):
    """With file, key, rule and value; exit code 2, and nothing runs."""
    monkeypatch.chdir(tmp_path)
    written(Path("a.toml"), text)
    with pytest.raises(ReplayError) as refused:
        read_replay("a.toml")
    assert str(refused.value).startswith("a.toml: ")
    assert sentence in str(refused.value)
    assert main(["replay", "a.toml"], emulate=pytest.fail) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (GOOD.replace("luf", "ful"), "a.toml: 'design' must be one of"),
        ("design = 'luf'\ntest = 'region: m 4'", "a.toml: test: columns of calls must follow the heads"),
        (GOOD.replace("munmap m", "mumap m"), "a.toml: test:13: process 'p' thread 0: 'call' must be one of"),
        (GOOD + "schedule = 'listed'\nswitches = [[0, 4, 9]]", "a.toml: 'schedule.switches' must name CPUs"),
        (
            "design = 'luf'\nworkload = 'churn:threads=x'\nmachine = 'guest-8cpu'",
            "a.toml: workload 'churn': 'threads' must be",
        ),
    ],
)
def test_mistakes_in_what_runs_are_sentences(text, sentence, tmp_path, monkeypatch, capsys):
    """Those that only show once it is put together."""
    monkeypatch.chdir(tmp_path)
    written(Path("a.toml"), text)
    assert main(["replay", "a.toml"], emulate=pytest.fail) == 2
    assert sentence in capsys.readouterr().err


def replayed(path, seen, capsys, *options):
    """Give exit code and screen of a replay whose runs are given."""
    runs = iter(seen)
    code = main(["replay", str(path), "--times", str(len(seen)), *options], emulate=lambda case: next(runs))
    return code, capsys.readouterr().out


FOUND = Seen("reuse: load", "5d0c", violation={"kind": "reuse", "cpu": 3, "access": "load"})


@pytest.mark.parametrize(
    ("seen", "code", "lines"),
    [
        ([FOUND] * 3, 1, ["seen      3 of 3: reuse: load", "as stored, to the event", "VIOLATION  reuse"]),
        ([FOUND], 1, ["events    of one run, and as stored", "not clean, exit code 1"]),
        ([Seen("", "aa")] * 2, 0, ["2 of 2: nothing", "not as stored: design", "clean, exit code 0"]),
        ([FOUND, Seen("", "b")], 1, ["1 of 2: reuse: load", "1 of 2: nothing", "not the same in all of 2"]),
        ([Seen("deadlock", sentence="cpu0 waits")], 1, ["cpu0 waits", "another finding: reuse: load"]),
    ],
)  # fmt: skip
def test_the_command_says_what_was_seen(seen, code, lines, tmp_path, capsys):
    """How often what, whether all runs were the same, whether it is what the file says."""
    path = written(tmp_path / "a.toml", replay_text(Recorded(CASES["a walk"], "reuse: load", "5d0c")))
    got, text = replayed(path, seen, capsys)
    assert got == code
    for line in lines:
        assert line in text


def test_a_case_is_shrunk_and_written(tmp_path, capsys):
    """What is left shows the same; a run that shows nothing is not shrunk."""

    def shows(case):
        return Seen("reuse: load" if "munmap" in case.test else "", "f")

    case = replace(CASES["a litmus test"], design="linux")
    path = written(tmp_path / "a.toml", replay_text(Recorded(case, "reuse: load")))
    small = tmp_path / "small.toml"
    assert main(["replay", str(path), "--shrink", str(small)], emulate=shows) == 1
    assert "shrunk    0 switches, 1 calls, 1 threads, 1 pages, after " in capsys.readouterr().out
    recorded = read_replay(small)
    assert recorded.signature == "reuse: load"
    assert recorded.case.test.splitlines()[-1] == "munmap m"
    small.unlink()
    assert main(["replay", str(path), "--shrink", str(small)], emulate=lambda case: Seen()) == 0
    assert not small.exists()


def test_a_design_whose_text_has_changed_is_said(tmp_path, capsys):
    """It is run all the same: whoever has mended it wants to know. It may lie beside the replay file."""
    source = Path(__file__).parent / "replays" / "counting.py"
    mine = written(tmp_path / "mine.py", source.read_text(encoding="utf-8"))
    case = replace(CASES["a litmus test"], design=f"{mine}:Counting")
    text = replay_text(Recorded(case, design_text=design_digest(case.design))).replace(f"{tmp_path}/", "")
    assert 'design = "mine.py:Counting"' in text
    path = written(tmp_path / "a.toml", text)
    assert "has changed" not in replayed(path, [FOUND], capsys)[1]
    written(mine, mine.read_text(encoding="utf-8") + "\n")
    assert "the design's file has changed since" in replayed(path, [FOUND], capsys)[1]
    assert "has changed" not in replayed(path, [FOUND], capsys, "--design", "linux")[1]


@pytest.fixture(scope="module")
def arena():
    with Arena() as one:
        yield one


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_what_is_stored_shows_itself_again(path, arena):
    """Three times, event by event; and vanilla Linux does not show it with the same test and schedule."""
    recorded = read_replay(path)
    run = runner(arena, shelf.ready(recorded.case.design))
    runs = [run(recorded.case) for _ in range(3)]
    assert [seen.signature for seen in runs] == [recorded.signature] * 3
    assert len({seen.fingerprint for seen in runs}) == 1
    assert runner(arena, shelf.ready("linux"))(recorded.case).signature == ""


def test_stored_cases_are_small_and_some_need_their_hand_overs():
    """A few lines each. Without its hand-overs such a case shows nothing."""
    cases = [read_replay(path).case for path in STORED]
    assert all(len(case.test.splitlines()) <= 25 for case in cases)
    assert any(case.schedule and case.schedule.switches for case in cases)
