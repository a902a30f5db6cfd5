"""`luf golden`: what it asks of the emulator, what it leaves, its exit codes, a sentence for each mistake."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from emulator import output_file
from emulator.cli import main
from emulator.golden.data import MicroCell, read_recording
from tests.golden.recorded import cell, mirror, run, write


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def fake():
    """A recording in `data`, and an emulator that is the recorded kernel."""
    cells = [cell("a_munmap", 1), cell("a_munmap", 4), cell("f_fork")]
    return mirror(
        read_recording(
            write(Path("data"), cells, [run("f8"), run("f8_rep2", ipis=990), run("a8", workload="anon_rw")])
        )
    )


def golden(fake, *words: str) -> int:
    return main(["golden", "--data", "data", *words], emulate=fake.emulation())


def test_everything_agrees(fake, capsys):
    """Exit code 0; every known cell is asked for at once, each run with three seeds, repetitions not; stderr
    stays empty.
    """
    assert golden(fake, "--seed", "7", "--jobs", "3") == 0
    micro, *runs = fake.asked
    assert micro == ([("a_munmap", 1, 16), ("a_munmap", 4, 16), ("f_fork", 4, 16)], 7, 3)
    assert runs == [(tag, seed, 3) for tag in ("f8", "a8") for seed in (7, 8, 9)]
    said = capsys.readouterr()
    assert "12 of 12 judged rows agree (100.0 %)" in " ".join(said.out.split())
    assert said.err == ""


def test_a_difference_is_exit_code_1(fake, capsys):
    """In a micro row, or in a band; also if it is explained."""
    fake.runs["f8"] = run("f8", ipis=2000)
    assert golden(fake) == 1
    capsys.readouterr()
    assert golden(fake, "--micro") == 0
    assert capsys.readouterr().out.endswith("\nverdict     clean, exit code 0\n")
    fake.cells["f_fork", 4, 16] = MicroCell({"tlb_ipi": [4]}, {})
    assert golden(fake, "--micro") == 1
    shown = capsys.readouterr().out
    assert "micro, unexplained" in shown
    blame = "linux by the recording (3 differences, 3 unexplained)"
    assert shown.endswith(f"\nverdict     not clean, exit code 1: {blame}\n")


def test_a_part_is_asked_for(fake):
    """--micro, --pressure, --only, and both of the first are everything."""
    for words, asked in (
        ("--micro", 1),
        ("--pressure", 2),
        ("--only a*", 2),
        ("--only f8 --pressure", 1),
        ("--micro --pressure", 3),
    ):
        fake.asked.clear()
        assert golden(fake, "--repeat", "1", *words.split()) == 0
        assert len(fake.asked) == asked, words


def test_a_change_of_the_machine_is_handed_on(fake):
    """To pressure runs, as numbers."""
    assert (
        golden(
            fake,
            "--pressure",
            "--only",
            "f8",
            "--repeat",
            "1",
            "--set",
            "host.cores=1",
            "--set",
            "costs.disk_page=9",
        )
        == 0
    )
    assert [asked[0] for asked in fake.asked] == ["f8"]
    assert fake.asked[0][3] == {"host.cores": 1, "costs.disk_page": 9}


def test_a_scenario_or_run_that_the_emulator_does_not_know_is_listed(fake, capsys):
    """It is not judged, and not silently skipped."""
    del fake.cells["f_fork", 4, 16], fake.runs["a8"]
    assert golden(fake) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "does not know, not judged: f_fork (1 cell)" in said
    assert "did not run, not judged: a8" in said


def test_files_that_are_left(fake, capsys):
    """JSON, picture, page with its picture; --json - instead of the report."""
    assert golden(fake, "--json", "out.json", "--plot", "out.svg", "--doc", "page.md") == 0
    assert json.loads(Path("out.json").read_text())["summary"]["agrees"] is True
    assert Path("page.md").read_text().startswith("# Fidelity")
    assert {path.name for path in Path().glob("*.*")} == {"out.json", "out.svg", "page.md", "page.png"}
    capsys.readouterr()
    assert golden(fake, "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["schema"] == "luf-golden/2"


def test_what_cannot_be_written_costs_only_itself(fake, capsys, monkeypatch):
    """Each is named with its option; the report is printed, the others are written, exit code 0 is a 2."""
    real = output_file.write_in

    def full(folder, name, data):
        if name in ("out.json", "page.png"):
            raise OSError(28, "No space left on device")
        real(folder, name, data)

    monkeypatch.setattr(output_file, "write_in", full)
    files = ("--json", "out.json", "--plot", "out.svg", "--doc", "page.md")
    assert golden(fake, *files) == 2
    said = capsys.readouterr()
    assert "verdict     clean" in said.out
    rule = "must be a file that can be written (got '{}': No space left on device)"
    assert said.err == "".join(
        f"luf: '--{option}' {rule.format(file)}\n"
        for option, file in (("json", "out.json"), ("plot", "page.png"))
    )
    assert {path.name for path in Path().glob("*.*")} == {"out.svg", "page.md"}
    fake.cells["f_fork", 4, 16] = MicroCell({"tlb_ipi": [4]}, {})
    assert golden(fake, *files) == 1


def test_a_result_is_reported_again(fake, capsys):
    """The same screen, without emulating; explanations are looked up anew."""
    fake.cells["f_fork", 4, 16] = MicroCell({"tlb_ipi": [4]}, {})
    assert golden(fake, "--json", "out.json", "--all") == 1
    screen = capsys.readouterr().out
    fake.asked.clear()
    assert main(["golden", "--again", "out.json", "--all"], emulate=fake.emulation()) == 1
    assert (capsys.readouterr().out, fake.asked) == (screen, [])
    table = json.loads(Path("out.json").read_text())
    Path("old.json").write_text(json.dumps(table | {"schema": "luf-golden/0"}))
    assert main(["golden", "--again", "old.json"]) == 2
    assert capsys.readouterr().err == "luf: old.json: 'schema' must be 'luf-golden/2' (got 'luf-golden/0')\n"
    assert main(["golden", "--again", "none.json"]) == 2
    assert capsys.readouterr().err == "luf: none.json: cannot be read (No such file or directory)\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--again out.json", r"'--again' must stand without --data: nothing is emulated \(got both\)"),
        ("--kernel 6.18", r"'--kernel' must be one of 6\.12 \(got '6\.18'\)"),
        ("--data nowhere", r"'--data' must be a folder with a file golden\.json \(got 'nowhere'\)"),
        (
            "--only zz*",
            r"'--only' must match a scenario or a tag .* \(got 'zz\*'\); "
            r"there are a_munmap, f_fork, f8, f8_rep2, a8",
        ),
        (
            "--micro --only f8",
            r"data/golden\.json must have micro scenarios to compare \(got none that match\)",
        ),
        (
            "--set a=1",
            r"'--set' must stand with --pressure, without --micro and --doc: "
            r"it changes the machine of pressure runs, to try \(got --set\)",
        ),
        (
            "--set a=1 --micro",
            r"'--set' must stand with --pressure, without .*, to try \(got --set and --micro\)",
        ),
        (
            "--set a=1 --pressure --doc a.md",
            r"'--set' must stand with --pressure, .*, to try \(got --set and --pressure and --doc\)",
        ),
        ("--plot out.bmp", r"'--plot' must end in \.png, \.svg, \.pdf \(got 'out\.bmp'\)"),
        ("--doc page.txt", r"'--doc' must end in \.md \(got 'page\.txt'\)"),
        (
            "--json no/out.json",
            r"'--json' must be a file in a folder that can be written to \(got 'no/out\.json'\)",
        ),
    ],
)
def test_bad_input_is_one_sentence(fake, capsys, words, sentence):
    """Exit code 2, before anything is emulated."""
    assert golden(fake, *words.split()) == 2
    said = capsys.readouterr()
    assert re.fullmatch(f"luf: {sentence}\n", said.err), said.err
    assert (said.out, fake.asked) == ("", [])


def test_a_recording_of_another_kernel_is_refused(fake, capsys):
    """Its rules are not 6.12's."""
    write(Path("data"), [cell()], environments={"x": {"uname": "Linux (none) 6.18.5 x86_64"}})
    assert golden(fake) == 2
    assert capsys.readouterr().err == "luf: '--kernel' must be that of the recording, 6.18 (got '6.12')\n"


def test_a_recording_with_another_flush_ceiling_is_refused(fake, capsys):
    """A kernel that flushes 34 pages one by one is not the 6.12 of the rules, whatever it calls itself."""
    write(Path("data"), [cell(events={"remote_send_ipi/34": 1})])
    assert golden(fake) == 2
    assert capsys.readouterr().err == (
        "luf: data/golden.json: a_munmap, T=4, P=16: 'traced.events_per_rep' must be of at most 33 pages "
        "or all0 (tlb_single_page_flush_ceiling of Linux 6.12) (got 'remote_send_ipi/34')\n"
    )


def test_ctrl_c_leaves_nothing(fake, capsys, monkeypatch):
    """One line, exit code 130, no file."""

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(fake, "emulate_micro", interrupted)
    assert golden(fake, "--json", "out.json") == 130
    assert capsys.readouterr().err == "luf: interrupted; nothing was written\n"
    assert not Path("out.json").exists()


def test_help_teaches(capsys):
    """What is compared with what, examples, exit codes."""
    with pytest.raises(SystemExit):
        main(["golden", "--help"])
    said = capsys.readouterr().out
    for words in ("real Linux kernel", "factor of 1.25", "luf golden --only 'f_*'", "exit code: 0"):
        assert words in said
