"""Every `luf` command of the documents is carried out, once, by the program itself: files that it names are
there, its workload is made, its designs are ready, what it leaves is written and shown. Only the emulation is
stood in for, and pictures are not drawn. What each command does for real, other tests say.
"""

from __future__ import annotations

import re
import shlex
import shutil
from functools import cache
from pathlib import Path

import pytest

from emulator.cli import main
from emulator.cli_arguments import KERNEL
from emulator.cli_sweep import CONVERGE_OUT, SWEEP_OUT
from emulator.golden.data import kernel_folder, read_recording
from emulator.litmus.run import Run
from emulator.replay.case import Case
from emulator.replay.file import Recorded, replay_text
from emulator.replay.seen import Seen
from emulator.result import to_json
from tests.emulator.fixed import Experiment, comparison
from tests.emulator.test_converge import all_alike
from tests.emulator.test_sensitivity import Emulation
from tests.golden.recorded import mirror
from tests.test_docs import DOCUMENTS, ROOT, blocks, commands
from workloads.litmus.laid_out import text_of
from workloads.litmus.shelf import litmus_test

COMMANDS = sorted(set(commands()))
# what stands for a name of the reader's own, and for a file that a part of the command line has made
WORDS = {"FILE": "found.toml", "DIR": "data", "FOLDER": "runs/0001-compare", "DESIGN": "luf", "A": "out.json",
         "B": "runs/latest", "...": "", "ADDRESS": "tcp://127.0.0.1:9"}  # fmt: skip
SWEEPS = {"sweep": SWEEP_OUT, "converge": CONVERGE_OUT}
REFUSED = {"luf report <(...)": "a pipe"}  # docs/reliability.md names them as such
ELSEWHERE = {  # they need an emulation that is true, or are what others here are, five times as long
    "luf compare --sensitivity --seeds 5 --leases 1": "tests/emulator/test_sensitivity.py",
    "luf litmus --runs 20": "tests/emulator/test_litmus.py",
    "luf litmus --exhaustive": "tests/emulator/test_exhaustive.py",
    "luf litmus cow-read --designs luf --exhaustive --preemptions 2 --seconds 60":
        "tests/emulator/test_exhaustive.py",
}  # fmt: skip
PYTHON = re.compile(r"python -m ((?:tests\.campaigns|benchmarks)\.\w+)((?: +-[\w-]+(?:[ =][\w./*%:-]+)*)*)")


class Traced(Experiment):
    """Takes a trace, and leaves it empty."""

    def __call__(self, experiment, progress, trace=None):
        return super().__call__(experiment, progress)


class Counters(dict):
    """Every counter that a test may ask for."""

    def __contains__(self, name):
        return True

    def __missing__(self, name):
        return 1


@cache
def recorded():
    """An emulator that is the recorded kernel."""
    return mirror(read_recording(kernel_folder(KERNEL))).emulation()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A reader's folder: the examples of the project, and the files that the documents speak of."""
    place = tmp_path_factory.mktemp("reader")
    for name in ("examples", "docs"):
        (place / name).mkdir()
    for file in (ROOT / "examples").iterdir():
        if file.is_file():
            (place / "examples" / file.name).symlink_to(file)
    test = text_of(litmus_test("munmap").sheet)
    trace = ROOT / "workloads" / "data" / "trace-t3-first"
    (machine,) = blocks(ROOT / "docs" / "machines.md", "toml")
    texts = {
        "half.toml": machine,
        "my.litmus": (ROOT / "workloads" / "litmus" / "tests" / "munmap.litmus").read_text(),
        "my_script.toml": (ROOT / "examples" / "written.toml").read_text(),
        "plan.toml": 'seeds = 2\n[vary]\ndesign = ["linux", "luf"]\n',
        "found.toml": replay_text(Recorded(Case("luf", test=test, seed=7))),
        "out.json": to_json(comparison()),
        "my_file.py": "from examples.eager import Eager\n\n\nclass MyDesign(Eager):\n    pass\n",
    }
    for name, text in texts.items():
        (place / name).write_text(text)
    script = (ROOT / "examples" / "truncate.py").read_text().replace("truncated", "NAME")
    for name in ("my.py", "my_script.py"):
        (place / name).write_text(script)
    for ending in (".npz", ".json"):
        (place / f"my_trace{ending}").symlink_to(trace.with_suffix(ending))
    (place / "data").symlink_to(kernel_folder(KERNEL))
    return place


@pytest.fixture(autouse=True)
def _without_pictures(monkeypatch):
    """A second each, which tests of pictures take."""

    def drawn(*given, **more):
        write = given[2] if len(given) > 2 else lambda name, data: Path(name).write_bytes(data)
        write(str(given[1]), b"<svg ></svg>")

    for where in ("report.plot.draw", "report.timeline_plot.draw_timeline", "repeats.plot.draw_repeats",
                  "golden.plot.draw_fidelity", "sensitivity.tornado.draw_tornado",
                  "sensitivity.command.draw_tornado", "sweep.command.draw_sweep",
                  "page.page.draw", "page.page.draw_timeline", "page.page.draw_repeats"):  # fmt: skip
        monkeypatch.setattr(f"emulator.{where}", drawn)


def stand_in(words):
    """What stands in for the emulation of a command; raises KeyError for one that nobody has thought of."""
    if "--sensitivity" in words or words[0] == "sweep":
        return Emulation()
    return {
        "compare": Traced(),
        "converge": all_alike,
        "run": Traced(),
        "golden": recorded(),
        "litmus": lambda one: Run(Counters()),
        "stress": lambda campaign, portfolio: None,
        "replay": lambda case: Seen(),
        "list": None,
        "report": None,
    }[words[0]]


def carried_out(command, folder, monkeypatch):
    """Carry a command out in a folder; gives its exit code."""
    monkeypatch.chdir(folder)
    words = [WORDS.get(word, word) for word in shlex.split(command)[1:]]
    words = [word.replace("FILE.", "file.") for word in words if word]
    if "--table" in words:
        words = [word.replace("found.toml", "found.csv") for word in words]
    if words[0] == "golden":
        words = [word.replace("out.json", "golden.json") for word in words]
    if words[0] in SWEEPS:  # each one by itself: a folder holds one sweep
        usual = SWEEPS[words[0]]
        shutil.rmtree(words[words.index("--out") + 1] if "--out" in words else usual, ignore_errors=True)
    if "--help" in words:
        with pytest.raises(SystemExit) as left:
            main(words)
        return left.value.code
    return main(words, emulate=stand_in(words))


@pytest.fixture
def reader(folder, monkeypatch):
    """The folder, with a run in it as `luf compare` leaves it."""
    if not (folder / "runs" / "latest").exists():
        monkeypatch.chdir(folder)
        assert main(["compare", "--machine", "guest-8cpu"], emulate=Experiment()) == 0
        assert main(["golden", "--json", "golden.json"], emulate=recorded()) == 0
    return folder


@pytest.mark.parametrize("command", [one for one in COMMANDS if one not in ELSEWHERE])
def test_a_command_of_the_documents_is_carried_out(command, reader, monkeypatch, capsys):
    code = carried_out(command, reader, monkeypatch)
    said = capsys.readouterr()
    assert code == (2 if command in REFUSED else 0), said.err
    assert said.out or said.err or "--" in command


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("luf run linux --workload nowhere.py:NAME", "nowhere.py"),
        ("luf compare linux nosuch", "'design' must be one of"),
        ("luf report runs/9999-compare", "runs/9999-compare"),
        ("luf compare --set sysctl.nosuch=1", "sysctl.nosuch"),
        ("luf sweep --vary nosuch=1,2", "nosuch"),
    ],
)
def test_a_planted_mistake_is_found(command, said, reader, monkeypatch, capsys):
    """What a parser takes, and cannot be done."""
    assert carried_out(command, reader, monkeypatch) == 2
    assert said in capsys.readouterr().err


def test_a_command_that_nobody_stands_in_for_is_found():
    with pytest.raises(KeyError):
        stand_in(["nosuch"])


def test_what_is_run_elsewhere_is_in_the_documents():
    assert set(ELSEWHERE) | set(REFUSED) <= set(COMMANDS)
    assert all((ROOT / test).exists() for test in ELSEWHERE.values())


def unknown_options(text):
    """Give what the campaigns and benchmarks that a text names have not: modules, and options."""
    found = []
    for module, options in PYTHON.findall(text):
        file = ROOT / (module.replace(".", "/") + ".py")
        if not file.exists():
            found.append(module)
            continue
        source = file.read_text()
        found += [f"{module} {one}" for one in re.findall(r"--[\w-]+", options) if f'"{one}"' not in source]
    return found


def test_campaigns_take_the_options_that_are_named():
    texts = [re.sub(r"\\\n *", "", document.read_text()) for document in DOCUMENTS]
    assert sum(len(PYTHON.findall(text)) for text in texts) > 10
    assert [one for text in texts for one in unknown_options(text)] == []
    planted = "`python -m tests.campaigns.results --seedz 3` and `python -m tests.campaigns.nosuch`"
    assert unknown_options(planted) == ["tests.campaigns.results --seedz", "tests.campaigns.nosuch"]
