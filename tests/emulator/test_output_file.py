"""A file that an option names is complete or unchanged; what is no regular file stays what it is."""

from __future__ import annotations

import errno
import os
import re
import signal
import stat
import subprocess
import sys
import threading

import pytest

from emulator.output_file import OutputError, check_output, write_atomically, write_output

HIDDEN = pytest.mark.parametrize("without_name", [True, False])


@pytest.fixture
def _named(monkeypatch, without_name):
    """A file system may have no files without a name."""
    if not without_name:
        monkeypatch.setattr("emulator.output_file.os.O_TMPFILE", os.O_DIRECTORY | os.O_CREAT)


@HIDDEN
@pytest.mark.usefixtures("_named")
@pytest.mark.parametrize("step", ["write", "rename"])
def test_a_file_is_replaced_whole(tmp_path, monkeypatch, step):
    """write_atomically leaves the old text if it cannot write the new one, and no other file; the error names
    the path.
    """
    file = tmp_path / "result.json"
    write_atomically(file, "old")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if step == "write":
        monkeypatch.setattr("emulator.output_file._Unfinished.fill", full)
    else:
        monkeypatch.setattr(os, "rename", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*/result.json'$"):
        write_atomically(file, "new")
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["result.json"]


WRITER = """
import os, sys
from emulator import output_file
if sys.argv[2] == "named":
    output_file.os.O_TMPFILE = os.O_DIRECTORY | os.O_CREAT
fill = output_file._Unfinished.fill
def slowly(self, data, mode):
    fill(self, data, mode)
    print("written", *os.listdir(os.path.dirname(sys.argv[1])), flush=True)
    sys.stdin.read()
output_file._Unfinished.fill = slowly
output_file.write_atomically(sys.argv[1], "half")
"""


def test_a_killed_writer_leaves_nothing(tmp_path):
    """What it was writing had no name."""
    command = [sys.executable, "-c", WRITER, str(tmp_path / "out.json"), "unnamed"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "written\n"
        writer.send_signal(signal.SIGKILL)
    assert os.listdir(tmp_path) == []


def test_nobody_can_guess_what_is_opened(tmp_path, monkeypatch):
    """Where a file must have a name while it is written: it is random, ours alone, and new. Planted: links at
    all names that earlier versions used lead to a victim's file, which stays what it is.
    """
    victim = tmp_path / "victim"
    victim.write_text("dear diary")
    shared = tmp_path / "shared"
    shared.mkdir()
    command = [sys.executable, "-c", WRITER, str(shared / "out.json"), "named"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        (name,) = writer.stdout.readline().split()[1:]
        assert re.fullmatch(r"\.luf-[0-9a-f]{16}\.partial", name)
        (shared / f".out.json.{writer.pid}.partial").symlink_to(victim)
        writer.communicate()
        assert writer.returncode == 0
    assert victim.read_text() == "dear diary"
    assert (shared / "out.json").read_text() == "half"
    monkeypatch.setattr("emulator.output_file.os.O_TMPFILE", os.O_DIRECTORY | os.O_CREAT)
    monkeypatch.setattr("emulator.output_file.secrets.token_hex", lambda _: "known")
    (shared / ".luf-known.partial").symlink_to(victim)
    with pytest.raises(FileExistsError):
        write_atomically(shared / "out.json", "evil")
    assert victim.read_text() == "dear diary"


@HIDDEN
@pytest.mark.usefixtures("_named")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0, 0o666)])
def test_a_file_has_the_rights_that_the_umask_leaves_or_those_it_had(tmp_path, mask, mode):
    """Never fewer hands than its folder allows, nor more than it had."""
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / "new", "text")
        (tmp_path / "old").touch()
        (tmp_path / "old").chmod(0o640)
        write_atomically(tmp_path / "old", "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == mode
    assert stat.S_IMODE((tmp_path / "old").stat().st_mode) == 0o640


def test_every_text_can_be_written(tmp_path):
    """Also half a surrogate pair, as names of files may have them."""
    write_atomically(tmp_path / "file", "a\udcffb\ud800")
    assert (tmp_path / "file").read_text() == "a\\udcffb\\ud800"


def test_a_long_name_can_be_written(tmp_path):
    """The name of what is being written is not made of it."""
    write_atomically(tmp_path / ("n" * 255), "text")
    assert (tmp_path / ("n" * 255)).read_text() == "text"


def test_a_pipe_stays_one_and_its_reader_gets_the_text(tmp_path):
    """As with `--json >(jq ...)`."""
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    check_output("json", str(pipe))
    write_output("json", str(pipe), "text")
    reader.join()
    assert got == ["text"]
    assert stat.S_ISFIFO(pipe.lstat().st_mode)


def test_a_full_device_stays_one_and_is_named(tmp_path):
    """A device like /dev/full, of our own: option, path and cause, and the device is still there."""
    device = tmp_path / "full"
    try:
        os.mknod(device, stat.S_IFCHR | 0o600, os.makedev(1, 7))
        device.open("wb").close()
    except PermissionError:
        pytest.skip("only root may make a device, and not on every file system")
    with pytest.raises(OutputError) as caught:
        write_output("json", str(device), "text")
    assert (
        str(caught.value)
        == f"'--json' must be a file that can be written (got {str(device)!r}: No space left on device)"
    )
    assert stat.S_ISCHR(device.lstat().st_mode)


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_one_and_its_target_is_written(tmp_path, there):
    """In another folder, and also if the target is yet to be made."""
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / "target.json", tmp_path / "link.json"
    if there:
        target.write_text("old")
    link.symlink_to("far/target.json")
    check_output("json", str(link))
    write_output("json", str(link), "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert sorted(os.listdir(tmp_path) + os.listdir(target.parent)) == ["far", "link.json", "target.json"]


@pytest.mark.parametrize("place", [".", "no/out.json", "link.json", "/proc/out.json"])
def test_what_could_not_be_written_is_refused_before_anything_runs(tmp_path, monkeypatch, place):
    """A folder, a folder that is not there, a link into one, and a folder in which nothing can be made;
    nothing is left.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.json").symlink_to("no/target.json")
    with pytest.raises(
        OutputError, match=r"^'--doc' must be a file in a folder that can be written to \(got '"
    ):
        check_output("doc", place)
    assert os.listdir(tmp_path) == ["link.json"]
