"""A run folder is complete or not there; numbers are never shared; what died is swept away."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tomllib

import pytest

from emulator.ownership import claim, remove_orphan
from emulator.run_folder import file_name, new_run_folder, toml_text, versions, write_comparison
from tests.emulator.fixed import comparison, run


def names(folder) -> list[str]:
    return sorted(os.listdir(folder))


def test_folders_are_numbered_and_latest_points_to_the_newest(tmp_path):
    """0001, 0002, ...; `latest` follows."""
    for kind in ("compare", "none"):
        with new_run_folder(tmp_path / "runs", kind) as folder:
            folder.write("a/b", kind)
    assert names(tmp_path / "runs") == ["0001-compare", "0002-none", "latest"]
    assert (tmp_path / "runs" / "latest" / "a" / "b").read_text() == "none"


def test_a_folder_named_latest_costs_the_link_only(tmp_path, capsys):
    """The run is kept, a line says why `latest` does not point to it, and no half-made link stays."""
    (tmp_path / "latest").mkdir()
    with new_run_folder(tmp_path, "compare"):
        pass
    assert names(tmp_path) == ["0001-compare", "latest"]
    assert (
        capsys.readouterr().err == f"luf: {tmp_path}/latest does not point to 0001-compare: Is a directory\n"
    )


def test_a_failed_run_leaves_nothing(tmp_path):
    """Not even an empty folder, and `latest` stays."""
    with new_run_folder(tmp_path, "compare"):
        pass
    with pytest.raises(KeyboardInterrupt), new_run_folder(tmp_path, "compare") as folder:  # noqa: PT012 (the block is what fails)
        folder.write("half", "x")
        raise KeyboardInterrupt
    assert names(tmp_path) == ["0001-compare", "latest"]


def test_while_it_is_written_it_is_hidden(tmp_path):
    """Nobody who lists the folder sees a half-written result; a second run takes the next number."""
    with new_run_folder(tmp_path, "one") as first, new_run_folder(tmp_path, "two") as second:
        assert [name for name in names(tmp_path) if not name.startswith(".")] == []
        assert (first.name, second.name) == ("0001-one", "0002-two")
    assert names(tmp_path) == ["0001-one", "0002-two", "latest"]


WRITER = """
import fcntl, os, sys
from emulator.run_folder import new_run_folder
def pause():
    print("writing", *open(f"/proc/self/task/{os.getpid()}/children").read().split(), flush=True)
    sys.stdin.read()
def pausing(real):
    def step(*given, **named):
        real(*given, **named)
        pause()
    return step
if sys.argv[2] == "flock":
    fcntl.flock = pausing(fcntl.flock)
elif sys.argv[2] in ("mkdir", "rename"):
    setattr(os, sys.argv[2], pausing(getattr(os, sys.argv[2])))
with new_run_folder(sys.argv[1], "compare") as folder:
    folder.write("result.json", "half of it")
    pause()
"""


def killed_writer(tmp_path, *, janitor: bool, at: str = "") -> None:
    """Kill a run while it writes, or at a step before it, and its janitor before or not."""
    command = [sys.executable, "-c", WRITER, str(tmp_path), at]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        _, pid = writer.stdout.readline().split()
        held = os.pidfd_open(int(pid))
        assert len(names(tmp_path)) == 1
        if janitor:
            signal.pidfd_send_signal(held, signal.SIGKILL)
        writer.kill()
    select.select([held], [], [], 10)  # the janitor has ended
    os.close(held)


@pytest.mark.parametrize("at", ["mkdir", "flock", "rename", "write"])
def test_a_killed_run_leaves_nothing(tmp_path, at):
    """SIGKILL at whatever step: its janitor removes what is half-made."""
    killed_writer(tmp_path, janitor=False, at=at)
    assert names(tmp_path) == []


def test_what_a_run_that_was_killed_with_its_janitor_leaves_is_swept(tmp_path):
    """No visible folder, and the next run removes the hidden one."""
    killed_writer(tmp_path, janitor=True)
    assert names(tmp_path) == [".0001.partial"]
    with new_run_folder(tmp_path, "compare"):
        pass
    assert names(tmp_path) == ["0001-compare", "latest"]


def test_a_host_without_a_process_for_the_janitor_costs_nothing_else(tmp_path, monkeypatch):
    """The folder is written all the same."""

    def full(*_):
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("emulator.janitor.os.fork", full)
    before = os.listdir("/proc/self/fd")
    with new_run_folder(tmp_path, "compare"):
        pass
    assert names(tmp_path) == ["0001-compare", "latest"]
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_a_folder_that_is_still_written_is_not_swept(tmp_path):
    """Two runs at once do not disturb each other."""
    with new_run_folder(tmp_path, "slow") as slow:
        with new_run_folder(tmp_path, "quick"):
            pass
        slow.write("kept", "yes")
    assert (tmp_path / "0001-slow" / "kept").read_text() == "yes"


OLD_S = 1_000_000


def old(path):
    """Make a file or folder look as if nobody had touched it for days."""
    os.utime(path, (OLD_S, OLD_S))


@pytest.mark.parametrize("proof", [None, "", "4242 1700000000.00\n", "copied"])
@pytest.mark.parametrize("name", [".photos.partial", ".0001.partial"])
def test_what_luf_has_not_made_is_never_removed(tmp_path, name, proof):
    """A folder of such a name stays, however old: without a proof, with that of an older luf, or with one
    that was copied from another folder.
    """
    foreign = tmp_path / name
    foreign.mkdir()
    (foreign / "diary.txt").write_text("kept")
    if proof == "copied":
        with new_run_folder(tmp_path / "elsewhere", "compare") as folder:
            shutil.copy(folder.path / "owner", foreign)
    elif proof is not None:
        (foreign / "owner").write_text(proof)
    for path in (*foreign.iterdir(), foreign):
        old(path)
    with new_run_folder(tmp_path, "compare"):
        pass
    assert (foreign / "diary.txt").read_text() == "kept"


def test_a_folder_of_another_user_is_never_removed(tmp_path, monkeypatch):
    """Also if everything else would prove it ours."""
    (tmp_path / ".0001.partial").mkdir()
    parent = os.open(tmp_path, os.O_RDONLY)
    os.close(claim(parent, ".0001.partial"))
    user = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: user + 1)
    remove_orphan(parent, ".0001.partial")
    assert names(tmp_path) == [".0001.partial"]
    monkeypatch.undo()
    remove_orphan(parent, ".0001.partial")
    assert names(tmp_path) == []
    os.close(parent)


IN_ANOTHER_NAMESPACE = """
import os, sys
from emulator.run_folder import new_run_folder
with new_run_folder(sys.argv[1], "slow") as folder:
    print("writing", os.getpid(), flush=True)
    sys.stdin.read()
"""


def test_a_run_of_another_pid_namespace_is_not_swept(tmp_path):
    """Its number means nothing here, or is another process's; the lock on its folder does."""
    unshare = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this host lets nobody make a namespace")
    command = [*unshare, sys.executable, "-c", IN_ANOTHER_NAMESPACE, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "writing 1\n"
        old(tmp_path / ".0001.partial")
        old(tmp_path / ".0001.partial" / "owner")
        with new_run_folder(tmp_path, "quick"):
            pass
        assert names(tmp_path) == [".0001.partial", "0002-quick", "latest"]
        writer.communicate()
    assert names(tmp_path) == ["0001-slow", "0002-quick", "latest"]


@pytest.mark.parametrize("kind", ["file", "link", "hidden"])
def test_latest_takes_the_place_of_nothing_but_a_link_of_luf(tmp_path, capsys, kind):
    """A file, a link that leads elsewhere, and what bears the name that earlier versions gave a half-made
    link stay.
    """
    (tmp_path / "best").mkdir()
    place = tmp_path / (f".latest.{os.getpid()}" if kind == "hidden" else "latest")
    if kind == "link":
        place.symlink_to("best")
    else:
        place.write_text("dear diary")
    with new_run_folder(tmp_path, "compare"):
        pass
    assert os.readlink(place) == "best" if kind == "link" else place.read_text() == "dear diary"
    assert ("does not point to 0001-compare" in capsys.readouterr().err) == (kind != "hidden")


def test_a_link_to_a_folder_that_is_yet_to_be_made(tmp_path):
    """As with files, it stays a link, and what it leads to is made."""
    (tmp_path / "link").symlink_to("far/away")
    with new_run_folder(tmp_path / "link", "compare") as folder:
        folder.write("a/b", "text")
    assert (tmp_path / "far" / "away" / "0001-compare" / "a" / "b").read_text() == "text"
    assert (tmp_path / "link").is_symlink()


def test_another_folder_in_the_place_of_ours_is_not_written_to(tmp_path):
    """Who can write to the folder of all runs may have put it there."""
    with new_run_folder(tmp_path, "compare") as folder:
        folder.write("one", "text")
    (tmp_path / "0001-compare").rename(tmp_path / "moved")
    (tmp_path / "victim").mkdir()
    (tmp_path / "0001-compare").symlink_to("victim")
    with pytest.raises(OSError, match=r"0001-compare/result.json'$"):
        folder.write("result.json", "evil")
    (tmp_path / "0001-compare").unlink()
    (tmp_path / "victim").rename(tmp_path / "0001-compare")
    with pytest.raises(OSError, match=r"is not the folder any more that was made there: .*/result.json'$"):
        folder.write("result.json", "evil")
    assert names(tmp_path / "0001-compare") == []


@pytest.mark.parametrize(
    ("kind", "name"),
    [("a/../../b", "0001-a_.._.._b"), ("luf-sync=help", "0001-luf-sync=help"), ("Ünter", "0001-Ünter"),
     ("x\udcff\x1b[2J", "0001-x_2J"), ("n" * 300, "0001-" + "n" * 60)],
)  # fmt: skip
def test_every_design_has_a_name_that_a_folder_can_have(tmp_path, kind, name):
    """Short, without control characters, and inside its folder."""
    with new_run_folder(tmp_path, kind):
        pass
    assert names(tmp_path) == [name, "latest"]


def test_a_locale_without_a_letter_gets_another(monkeypatch):
    """As under LC_ALL=C without UTF-8."""

    def ascii_only(text):
        return text.encode("ascii")

    monkeypatch.setattr(os, "fsencode", ascii_only)
    assert (file_name("Ünter"), file_name("luf")) == ("_nter", "luf")


def test_a_comparison_folder_has_everything(tmp_path):
    """Result, resolved config twice, environment, and per design the counters and three text files."""
    config = {
        "seed": 1,
        "designs": ["linux", "luf"],
        "machine": {"cpus": 4, "nodes": [{"name": "DRAM"}], "tlb": {"pcid": True}},
    }
    with new_run_folder(tmp_path, "compare") as folder:
        write_comparison(folder, comparison(), config)
    place = tmp_path / "0001-compare"
    assert names(place) == ["config.json", "config.toml", "environment.json", "linux", "luf", "result.json"]
    assert names(place / "luf") == ["counters.json", "interrupts", "perf-stat", "vmstat"]
    assert json.loads((place / "config.json").read_text()) == config
    assert tomllib.loads((place / "config.toml").read_text()) == config
    assert json.loads((place / "luf" / "counters.json").read_text())["tlb_shootdowns"] == [10, 12, 9, 11]


def test_each_design_has_a_folder_of_its_own(tmp_path):
    """Also if the names are equal once they are names of files, lead out of the folder, or are those of its
    files.
    """
    designs = ["a:b", "a b", "..", "../x", "result.json", "luf", "luf"]
    with new_run_folder(tmp_path, "compare") as folder:
        write_comparison(folder, comparison(*map(run, designs)), {})
    assert names(tmp_path) == ["0001-compare", "latest"]
    place = tmp_path / "0001-compare"
    folders = ["_", "_x", "a_b", "a_b-2", "luf", "luf-2", "result.json-2"]
    assert [name for name in names(place) if (place / name).is_dir()] == folders
    assert all("perf-stat" in names(place / name) for name in folders)


def test_toml_text_is_toml():
    """Nested tables, lists of tables, odd strings."""
    table = {"text": 'a "b"\n', "on": True, "sizes": [1, 2.5], "deep": {"er": {"x": 1}, "y": 2}}
    table["rows"] = [{"a": 1, "in": {"b": 2}}, {"a": 3}]
    assert tomllib.loads(toml_text(table)) == table


def test_versions_name_what_decides_a_run():
    """Python and the libraries, libzmq's own version included."""
    assert {"python", "numpy", "numba", "pyzmq", "libzmq"} <= set(versions())
