"""A trace's archive: every byte may be wrong, and none of them costs more than a sentence."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from inputs.archive import read_arrays
from inputs.file import InputError

NAMES = ("thread", "page")
NUMBERS = 60
NO_ARCHIVE = "must be a numpy .npz archive of plain arrays (got: "


@pytest.fixture
def archive(tmp_path):
    """Return a function that writes an archive, compressed or not, and gives its path."""

    def write(compressed=True, **arrays):
        file = tmp_path / "trace.npz"
        arrays = {name: np.arange(NUMBERS, dtype=np.uint32) for name in NAMES} | arrays
        (np.savez_compressed if compressed else np.savez)(file, **arrays)
        return file

    return write


def with_member(file, name, data):
    """Put a member of any bytes into an archive of its own."""
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("thread.npy", data)
    return file


def header(text, version=(1, 0)):
    """Give a header of an array that says `text`."""
    return b"\x93NUMPY" + bytes(version) + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize("compressed", [True, False])
def test_arrays_are_read(archive, compressed):
    found = read_arrays(archive(compressed), NAMES)
    assert {name: array.tolist() for name, array in found.items()} == {
        name: list(range(NUMBERS)) for name in NAMES
    }


@pytest.mark.parametrize("compressed", [True, False])
def test_any_flipped_byte_is_refused_or_harmless(archive, compressed):
    """What is not refused gives the same numbers: a name that nobody asks for, a date."""
    file = archive(compressed)
    whole, said = file.read_bytes(), []
    for at in range(len(whole)):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            found = read_arrays(file, NAMES)
        except InputError as error:
            said.append(str(error))
        else:
            assert all(array.tolist() == list(range(NUMBERS)) for array in found.values())
    assert len(said) > len(whole) * 0.6
    assert [one for one in said if not one.startswith(f"{file}: ") or len(one) > 300 + len(str(file))] == []


@pytest.mark.parametrize("cut", [0, 1, 10, 200, -1])
def test_a_cut_archive(archive, cut):
    file = archive()
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(InputError) as refused:
        read_arrays(file, NAMES)
    assert str(refused.value).startswith(f"{file}: {NO_ARCHIVE}")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", NO_ARCHIVE),
        (header("("), NO_ARCHIVE),
        (header("{'descr': '<u4', 'fortran_order': False, 'shape': (" * 900), NO_ARCHIVE),
        (header("{}", (9, 9)), NO_ARCHIVE),
        (
            header("{'descr': '<u4', 'fortran_order': False, 'shape': (1000000000000,), }"),
            "'thread' must have the 1,000,000,000,000 numbers that its header says (got 0 bytes)",
        ),
        (
            header("{'descr': '<u4', 'fortran_order': False, 'shape': (-1,), }") + b"1234",
            "'thread' must have the -1 numbers that its header says (got 4 bytes)",
        ),
        (
            header("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }") + b"12345678",
            "'thread' must be a row of integers (got object (1,))",
        ),
        (
            header("{'descr': '<f8', 'fortran_order': False, 'shape': (1, 1), }") + b"12345678",
            "'thread' must be a row of integers (got float64 (1, 1))",
        ),
    ],
)
def test_an_array_is_what_its_header_says(tmp_path, data, sentence):
    """A header of 10**12 rows takes no memory; objects are not made."""
    file = with_member(tmp_path / "trace.npz", "thread", data)
    with pytest.raises(InputError) as refused:
        read_arrays(file, ("thread",))
    assert str(refused.value).startswith(f"{file}: {sentence}")


def test_what_unpacks_to_too_much_is_not_unpacked(tmp_path, monkeypatch):
    """A few bytes that would become gigabytes."""
    monkeypatch.setattr("inputs.archive.ARRAY_BYTES", 1 << 20)
    file = tmp_path / "trace.npz"
    np.savez_compressed(file, thread=np.zeros(1 << 20, np.uint32))
    with pytest.raises(InputError, match=r"arrays of at most 1 MiB together \(got 4 MiB\)$"):
        read_arrays(file, ("thread",))


def test_a_pickle_is_no_archive(tmp_path):
    file = tmp_path / "trace.npz"
    data = io.BytesIO()
    np.save(data, np.array([{}], object), allow_pickle=True)
    file.write_bytes(data.getvalue())
    with pytest.raises(InputError, match=r"plain arrays \(got: File is not a zip file\)$"):
        read_arrays(file, ("thread",))
