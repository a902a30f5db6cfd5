"""The command line as a process of its own: its streams, signals that end it, how fast it answers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from emulator.result import to_json
from tests.emulator.fixed import comparison
from tests.emulator.test_timeline import with_timeline


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (signal.SIGTERM, 143, "terminated"),
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGHUP, 129, "ended, as its terminal was closed"),
        (signal.SIGQUIT, 131, "quit"),
    ],
)
def test_a_real_signal_ends_a_real_command(number, code, word):
    """Sent to a process in the middle of a run: its code, one sentence, nothing left, within seconds."""
    program = """
import signal, sys, time
from emulator.cli import main
from tests.emulator.fixed import Experiment
signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's background job inherits it ignored
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
    signal.signal(number, signal.SIG_DFL)
class Slow(Experiment):
    def __call__(self, experiment, progress):
        print("running", flush=True)
        time.sleep(60)
sys.exit(main(["run", "luf", "--machine", "guest-8cpu"], emulate=Slow()))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert command.stdout.readline() == "running\n"
    command.send_signal(number)
    _, said = command.communicate(timeout=10)
    assert (command.returncode, said) == (code, f"luf: {word}; nothing was written\n")
    assert os.listdir(".") == []


@pytest.mark.parametrize(("last", "tracebacks"), [("program()", 0), ("main()", 1)])
def test_ctrl_c_while_python_ends_prints_no_traceback(last, tracebacks):
    """Everything is said by then; planted: without `program` Python tells where it was."""
    program = """
import atexit, os, signal, sys
from emulator.cli import main, program
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = ["luf", "list", "machines"]
code = LAST
atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))
"""
    done = subprocess.run(
        [sys.executable, "-c", program.replace("LAST", last)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        timeout=60,
        check=False,
    )
    assert "guest-8cpu" in done.stdout
    assert done.stderr.count("Traceback") == tracebacks


def test_a_run_that_nohup_started_outlives_its_terminal():
    """SIGHUP that is ignored stays ignored; planted: SIGTERM then ends it."""
    program = """
import os, signal, sys
from emulator.cli import main
from tests.emulator.fixed import Experiment
class Slow(Experiment):
    def __call__(self, experiment, progress):
        os.kill(os.getpid(), signal.SIGHUP)
        print("alive", flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
sys.exit(main(["run", "luf", "--machine", "guest-8cpu"], emulate=Slow()))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (143, "alive\n")


@pytest.mark.parametrize("module", ["emulator.cli", "argparse"])
def test_ctrl_c_while_the_program_is_still_being_imported(module):
    """The signal arrives at an import, before any handler of ours: 130 and one sentence, no traceback."""
    program = f"""
import signal, sys
from emulator.__main__ import program
signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's background job inherits it ignored
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
sys.argv = ["luf", "list", "machines"]
sys.exit(program())
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "luf: interrupted; nothing was written\n")


def test_python_m_emulator_is_the_command():
    """With its exit code."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    run = [sys.executable, "-m", "emulator"]
    done = subprocess.run(
        [*run, "list", "machines"], capture_output=True, text=True, env=environment, timeout=60, check=False
    )
    assert (done.returncode, done.stderr, done.stdout.split()[0]) == (0, "", "machines")
    assert (
        subprocess.run(
            [*run, "fly"], capture_output=True, env=environment, timeout=60, check=False
        ).returncode
        == 2
    )


def command(
    arguments: str, experiment: str = "Experiment()", closed: str = "", **options
) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own; `closed` is what the shell does with its streams."""
    program = (
        "import sys; from emulator.cli import main; from tests.emulator.fixed import REUSE, Experiment; "
    )
    program += f"sys.exit(main(emulate={experiment}))"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        **options.pop("environment", {}),
    }
    shell = ["bash", "-c", f'exec "$0" -c "$1" {arguments} {closed}', sys.executable, program]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.run(
        shell, text=True, encoding="utf-8", env=environment, timeout=60, check=False, **streams
    )


@pytest.mark.parametrize(("experiment", "code"), [("Experiment()", 0), ("Experiment(violations=[REUSE])", 1)])
def test_a_reader_that_leaves_does_not_change_the_exit_code(experiment, code):
    """Report, JSON, and the report of a finished run: the code is the run's, not the pipe's, and nobody
    complains.
    """
    reader, writer = os.pipe()
    os.close(reader)
    for arguments in (
        "run luf --machine guest-8cpu --leases 2",
        "run luf --machine guest-8cpu --leases 2 --json -",
        "report runs/latest",
    ):
        done = command(arguments, experiment, stdout=writer)
        assert (done.returncode, done.stderr) == (code, "")
    done = command("run luf --machine guest-8cpu --leases 1", experiment, stderr=writer)
    assert done.returncode == code
    os.close(writer)


@pytest.mark.parametrize(("encoding", "full"), [("ascii", "@"), ("latin-1", "@"), ("utf-8", "█")])
def test_a_terminal_without_blocks_gets_a_timeline_with_heights(encoding, full):
    """None of them is a question mark."""
    Path("run.json").write_text(
        to_json(comparison(with_timeline("linux", {"kswapd": {0: 100, 90: 1}}))), encoding="utf-8"
    )
    done = command("report run.json --timeline", environment={"PYTHONIOENCODING": encoding})
    assert (done.returncode, done.stderr) == (0, "")
    assert f"\n{full} is 100 in " in done.stdout
    assert "?" not in done.stdout


@pytest.mark.parametrize(
    "line",
    ["list machines", "--version", "--help", "run --help", "run luf --machine guest-8cpu", "report r.json"],
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_under_stdout_is_named(line, unbuffered):
    """Exit code 2 and one sentence, with which a report or a list that was lost is not taken for an empty
    one.
    """
    Path("r.json").write_text(to_json(comparison()), encoding="utf-8")
    done = command(line, closed=">/dev/full", environment={"PYTHONUNBUFFERED": unbuffered})
    said = "luf: standard output: No space left on device\n"
    if unbuffered and "help" in line:  # argparse says nothing of it
        said = ""
    assert (done.returncode, done.stderr) == (2 if said else 0, said)


@pytest.mark.parametrize("closed", ["2>/dev/full", "2>&-", ">/dev/full 2>/dev/full", ">&- 2>&-"])
@pytest.mark.parametrize(
    ("line", "experiment", "code"),
    [
        ("fly", "Experiment()", 2),
        ("run lfu", "Experiment()", 2),
        ("run luf --cpus x", "Experiment()", 2),
        ("report nothing", "Experiment()", 2),
        ("run none --machine guest-8cpu", "Experiment(violations=[REUSE])", 1),
        ("run luf --machine guest-8cpu", "Experiment(error=RuntimeError('planted'))", 3),
        ("run luf --machine guest-8cpu", "Experiment(error=KeyboardInterrupt())", 130),
    ],
)
def test_exit_codes_hold_whatever_the_streams_do(closed, line, experiment, code):
    """They say what was found, or what is wrong, also where nothing can be said."""
    assert command(line, experiment, closed=closed).returncode == code


def test_a_violation_under_a_full_stdout_is_one():
    """What was found counts more than that it could not be printed; both are said."""
    done = command("run none --machine guest-8cpu", "Experiment(violations=[REUSE])", closed=">/dev/full")
    assert (done.returncode, done.stderr) == (1, "luf: standard output: No space left on device\n")


def test_closed_streams_are_no_violation():
    """`2>&-` and `>&-` take what would be said there, and nothing else."""
    line = "run luf --machine guest-8cpu --leases 1"
    quiet = command(line, closed="2>&-")
    assert (quiet.returncode, quiet.stdout.split()[0]) == (0, "machine")
    assert command(line, closed=">&-").returncode == 0
    assert command("run lfu", closed="2>&-").returncode == 2


def test_a_terminal_without_our_letters_gets_the_report():
    """ASCII: what it has not is replaced."""
    done = command("run luf --machine guest-8cpu --leases 2", environment={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "?   picture, interrupts, vmstat" in done.stdout


def test_help_teaches_and_is_instant():
    """Examples and exit codes are there; nothing heavy is imported for them."""
    program = """
import sys
from emulator.cli import main
try:
    main(["compare", "--help"])
finally:
    print(sorted({"numpy", "numba", "rich", "msgspec", "matplotlib"} & set(sys.modules)))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    said = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        timeout=30,
    ).stdout
    assert said.rstrip().endswith("[]")
    assert "luf run luf --leases 1 --seed 7" in said
    assert "exit code: 0 clean" in said


def test_a_report_is_quick(tmp_path):
    """It needs neither the engine nor statistics."""
    (tmp_path / "r.json").write_text(to_json(comparison()))
    program = """
import sys
from emulator.cli import main
main(["report", "r.json"])
print(sorted({"numba", "scipy", "matplotlib", "pandas"} & set(sys.modules)))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = [sys.executable, "-c", program]
    said = subprocess.run(
        done, capture_output=True, text=True, check=True, env=environment, timeout=30
    ).stdout
    assert said.rstrip().endswith("[]")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_does_not_leave_half_a_library(number):
    """One that comes while msgspec is imported waits until it is: half of it would crash at its first use."""
    program = f"""
import os, signal, sys
from emulator.cli import main
signal.signal({int(number)}, signal.default_int_handler if {int(number)} == 2 else signal.SIG_DFL)
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "msgspec._core":
            os.kill(os.getpid(), {int(number)})
sys.meta_path.insert(0, Finder())
code = main(["report", "nowhere"])
print(code, hasattr(sys.modules.get("msgspec"), "convert"))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False
    )
    assert (done.stdout, done.returncode) == (f"{128 + number} True\n", 0), done.stderr
