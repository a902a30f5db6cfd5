"""A file that an option names is complete or unchanged; what is no regular file stays what it is."""

from __future__ import annotations

import os
import stat
import threading

import pytest

from emulator.output_file import OutputError, check_output, write_atomically, write_output


def test_a_file_is_replaced_whole(tmp_path):
    """write_atomically leaves the old text if it cannot write the new one, and no other file."""
    file = tmp_path / "result.json"
    write_atomically(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(file, "\ud800")
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["result.json"]


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
