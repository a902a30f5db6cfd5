"""One reader for all input files: what is no regular file of bounded size is refused at once, by its path."""

from __future__ import annotations

import os
import socket

import pytest

from emulator.golden.data import kernel_folder, read_recording
from emulator.golden.result import read_fidelity
from emulator.golden.rules import Explained, read_rules
from emulator.machine import load_machine
from emulator.result import read_comparison
from inputs.file import MIB, InputError, read_bytes
from workloads.recording import read as read_trace
from workloads.script_toml import script_from_toml

READERS = {
    "machine.toml": load_machine,
    "script.toml": script_from_toml,
    "trace.npz": read_trace,
    "result.json": read_comparison,
    "golden.json": lambda path: read_recording(path.parent),
    "again.json": lambda path: read_fidelity(path, read_rules(kernel_folder("6.12")), Explained(), {}),
}


@pytest.mark.timeout(10)
@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "socket"])
def test_what_may_never_end_is_refused(tmp_path, monkeypatch, name, kind):
    """By every reader, with the path and what was found there; nobody waits for a writer."""
    monkeypatch.chdir(tmp_path)  # a socket's path has at most a hundred characters
    if kind == "pipe":
        os.mkfifo(name)
    elif kind == "device":
        os.symlink("/dev/zero", name)
    elif kind == "folder":
        os.mkdir(name)
    else:
        server = socket.socket(socket.AF_UNIX)
        server.bind(name)
    (tmp_path / "trace.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError) as refused:
        READERS[name](tmp_path / name)
    assert name in str(refused.value) or f"{tmp_path}" in str(refused.value)
    assert len(str(refused.value)) < 200 + len(str(tmp_path))


@pytest.mark.parametrize("size", [0, 1, MIB])
def test_a_regular_file_is_read_to_the_bound(tmp_path, size):
    file = tmp_path / "file"
    file.write_bytes(b"x" * size)
    assert len(read_bytes(file, most=MIB)) == size


def test_one_byte_more_is_refused(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"x" * (MIB + 1))
    with pytest.raises(InputError, match=r"file: must be of at most 1 MiB \(got 1,048,577 bytes\)$"):
        read_bytes(file, most=MIB)


def test_a_file_that_has_no_size_is_read_to_the_bound_and_no_further():
    """As those of /proc: the file system says 0 bytes."""
    assert read_bytes("/proc/self/status", most=MIB).startswith(b"Name:")
    with pytest.raises(InputError, match=r"^/proc/self/pagemap: must be of at most 1 MiB \(got more\)$"):
        read_bytes("/proc/self/pagemap", most=MIB)


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("none.toml", "none.toml: cannot be read (No such file or directory)"),
        ("a\0b", "a\\x00b: cannot be read (embedded null byte)"),
        ("\x1b[31mred\n\udcff", "\\x1b[31mred\\n\\udcff: cannot be read (No such file or directory)"),
        ("x" * 5000, "x" * 120 + " ... " + "x" * 120 + ": cannot be read (File name too long)"),
    ],
)
def test_a_path_is_shown_on_one_line(path, sentence):
    """Whatever it consists of, and clipped."""
    with pytest.raises(InputError) as refused:
        read_bytes(path, most=MIB)
    assert str(refused.value) == sentence
