"""Runs of several seeds: made in turn, kept, shown with what they say together, and read again."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from emulator.cli import main
from emulator.cli_arguments import SEEDS_MAX
from emulator.repeats.plot import draw_repeats
from emulator.repeats.result import read_result, repeats
from emulator.repeats.text import COLUMNS, repeats_text
from tests.emulator.fixed import REUSE, Experiment, run

SMALL = ["--machine", "guest-8cpu", "--cpus", "4", "--leases", "2"]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def runs(design, count, *, first=400, step=1, **changes):
    """Runs whose shootdowns grow from run to run."""
    found = []
    for i in range(count):
        per_cpu = [first + step * i, 0, 0, 0]
        found.append(
            run(design, seed=i + 1, tlb_shootdowns_per_cpu=per_cpu, tlb_shootdowns=sum(per_cpu), **changes)
        )
    return found


def line(text, label, design):
    """The line of a design below a figure's label."""
    lines = iter(text.splitlines())
    below = itertools.dropwhile(lambda one: not one.startswith(label), lines)
    return next(one for one in below if one[20:].startswith(design))


def test_all_designs_have_each_seed_in_turn_and_the_other_way_round(capsys):
    emulate = Experiment()
    assert main(["compare", "linux", "luf", *SMALL, "--seeds", "3", "--seed", "7"], emulate=emulate) == 0
    made = [(call["design"], call["seed"]) for call in emulate.calls]
    assert made == [("linux", 7), ("luf", 7), ("luf", 8), ("linux", 8), ("linux", 9), ("luf", 9)]
    assert "seeds 7 to 9" in capsys.readouterr().out


def test_what_is_kept_is_shown_again():
    assert (
        main(["compare", "linux", "luf", *SMALL, "--seeds", "2", "--json", "o.json"], emulate=Experiment())
        == 0
    )
    found = read_result("runs/latest")
    assert [one.design for one in found.runs] == ["linux", "luf", "luf", "linux"]
    assert repeats_text(found) == repeats_text(read_result("o.json"))
    assert json.loads(Path("o.json").read_text())["schema"] == "luf-repeats/1"


def test_the_report_of_a_folder_is_the_screen(capsys):
    main(["compare", "linux", "luf", *SMALL, "--seeds", "2"], emulate=Experiment())
    printed = capsys.readouterr().out
    assert main(["report", "runs/latest"]) == 0
    assert capsys.readouterr().out == printed
    assert main(["report", "runs/latest", "--picture", "p.svg"]) == 0
    assert "ratio to linux" in Path("p.svg").read_text()


def test_a_design_beside_itself_is_two_columns(capsys):
    assert main(["compare", "linux", "linux", *SMALL, "--seeds", "2"], emulate=Experiment()) == 0
    assert "2 of linux, 2 of linux-2" in capsys.readouterr().out
    assert main(["compare", "linux", "linux", *SMALL], emulate=Experiment()) == 0
    assert "linux-2" in capsys.readouterr().out


def test_a_change_has_its_interval_and_chance_has_none():
    text = repeats_text(repeats([*runs("linux", 6), *runs("luf", 6, first=40)]))
    assert line(text, "TLB shootdowns", "luf").endswith(" -89.4 % [-89.9, -88.9]")
    assert line(text, "TLB shootdowns", "the talk").endswith(" -97.2 %")
    assert line(text, "TLB shootdowns", "linux").endswith("400 to 405")
    text = repeats_text(repeats([*runs("linux", 6), *runs("luf", 6)]))
    assert "no difference seen (p = 1)" in line(text, "TLB shootdowns", "luf")
    assert line(text, "unmapped read-only", "luf").endswith("  the same")
    text = repeats_text(repeats([*runs("linux", 6, step=10), *runs("luf", 6, first=410, step=10)]))
    assert "no difference seen (p = 0." in line(text, "TLB shootdowns", "luf")
    text = repeats_text(repeats([*runs("linux", 3), *runs("luf", 3, first=40)]))
    assert "-89.8 %, but 3 + 3 runs cannot tell" in line(text, "TLB shootdowns", "luf")


def test_all_fits_80_columns():
    """But for what comparisons of one run each have in common: machine, workload, host."""
    many = [one for name in ("linux", "luf", "luf:sync=requesters", "epoch") for one in runs(name, 6, step=7)]
    text = repeats_text(repeats(many))
    assert max(len(one) for one in text.partition("\nruns ")[2].splitlines()) <= COLUMNS


def test_a_run_that_was_stopped_is_left_out_and_blamed(capsys):
    stopped = run("none", seed=2, violations=[REUSE], accounted={}, runtime_ns=[])
    found = repeats([*runs("linux", 2), run("none", seed=1), stopped])
    text = repeats_text(found)
    assert "1 of 2 runs with a violation, the first with seed 2; 1 stopped early, left out above" in text
    assert "VIOLATION  reuse" in text
    assert text.endswith(
        "not clean, exit code 1: none by the oracle (1 violation) in 1 of 2 runs, the first with seed 2\n"
    )


def test_a_command_that_is_ended_keeps_the_runs_before(capsys):
    class Third(Experiment):
        def __call__(self, *given):
            self.error = KeyboardInterrupt() if len(self.calls) == 2 else None
            return super().__call__(*given)

    assert main(["compare", "linux", "luf", *SMALL, "--seeds", "2"], emulate=Third()) == 130
    found = read_result("runs/latest")
    assert len(found.runs) == 2
    assert found.missing == {
        "luf, seed 2": "the command was interrupted",
        "linux, seed 2": "it was not begun",
    }
    assert "luf, seed 2 and 1 more: no result" in repeats_text(found)


def test_any_runs_that_are_read_have_a_report(recwarn):
    """One of a design has come to its end, a median can be drawn that is 0, seeds are far apart: no number
    that is none, no warning of a library, no wait.
    """
    stopped = [run("linux", seed=seed, violations=[REUSE], accounted={}) for seed in (1, 2)]
    text = repeats_text(repeats([*stopped, *runs("linux", 1), *runs("luf", 3, first=40)]))
    assert line(text, "TLB shootdowns", "luf").endswith(" -89.8 %, but 1 + 3 runs cannot tell")
    zeros = [*runs("linux", 3, first=0, step=0), *runs("linux", 5, step=0)]
    found = repeats([*zeros, *runs("luf", 8, first=10_000)])
    assert "+2,400.9 % (p = " in line(repeats_text(found), "TLB shootdowns", "luf")
    draw_repeats(found, "p.svg")
    far = repeats([run("linux", seed=0), run("linux", seed=2**63 - 1)])
    assert "2 seeds" in repeats_text(far)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"runs": [{"design": "a"}] * (SEEDS_MAX + 1)}, "'runs' must be at most 100 of a design (got 101 of"),
        ({"runs": []}, "runs"),
        ({"schema": "luf-repeats/9"}, "'schema' must be 'luf-comparison/1' or 'luf-repeats/1'"),
        ({"runs": [{"seed": 1}, {"scale": 7.0}]}, "'scale' must be the same in all runs"),
        ({"runs": [{"tlb_shootdowns": 3}, {}]}, "'runs[0].tlb_shootdowns' must be the sum"),
    ],
)
def test_what_contradicts_itself_is_refused(change, said, capsys):
    main(["compare", "linux", *SMALL, "--seeds", "2", "--json", "o.json"], emulate=Experiment())
    table = json.loads(Path("o.json").read_text())
    if change.get("runs"):
        change = {"runs": [table["runs"][0] | more for more in change["runs"]]}
    Path("o.json").write_text(json.dumps(table | change))
    assert main(["report", "o.json"]) == 2
    assert said in capsys.readouterr().err


def test_runs_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match="'scale' must be the same in all runs"):
        repeats([run(), run(scale=7.0)])
    with pytest.raises(ValueError, match="at least one run"):
        repeats([])


def test_a_timeline_is_of_one_run(capsys):
    main(["compare", "linux", *SMALL, "--seeds", "2"], emulate=Experiment())
    assert main(["report", "runs/latest", "--timeline"]) == 2
    assert "'--timeline' must be asked of one run of each design" in capsys.readouterr().err
