"""Read a numpy .npz archive of plain arrays: rows of whole numbers, nothing that would have to be executed.

Sizes are known before anything is unpacked: the archive's directory has each member's, and the header of an
array its type and length. What does not fit together is refused, so an archive takes the memory of the
numbers in it, and never more than `ARRAY_BYTES`.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from inputs.decode import decoding
from inputs.file import MIB, InputError, read_bytes, shown
from inputs.text import clipped, on_a_line

ARCHIVE_BYTES = 512 * MIB  # on disk
ARRAY_BYTES = 2048 * MIB  # unpacked, all arrays together: a hundred million rows
NO_ARCHIVE = "must be a numpy .npz archive of plain arrays (got: {})"


def read_arrays(
    path: str | Path, names: Sequence[str], refusal: type[ValueError] = InputError
) -> dict[str, np.ndarray]:
    """Return these arrays, rows of whole numbers; raises `refusal` if one is not there, or something else."""
    name = shown(path)
    data = read_bytes(path, most=ARCHIVE_BYTES, refusal=refusal)
    with decoding(name, NO_ARCHIVE, refusal):
        archive = zipfile.ZipFile(io.BytesIO(data))
        members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
    for wanted in names:
        if wanted not in members:
            there = on_a_line(", ".join(members), 200) or "an empty one"
            raise refusal(f"{name}: {wanted!r} must be in the archive (got {there})")
    unpacked = sum(members[wanted].file_size for wanted in names)
    if unpacked > ARRAY_BYTES:
        rule = f"must have arrays of at most {ARRAY_BYTES // MIB:,} MiB together"
        raise refusal(f"{name}: {rule} (got {unpacked // MIB:,} MiB)")
    return {wanted: _array(name, wanted, archive, members[wanted], refusal) for wanted in names}


def _array(
    name: str, wanted: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo, refusal: type[ValueError]
) -> np.ndarray:
    with decoding(name, NO_ARCHIVE, refusal):
        data = io.BytesIO(archive.read(member))
        version = npy.read_magic(data)
        header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = header(data)
        start = data.tell()
    if len(shape) != 1 or dtype.kind not in "iu":
        got = clipped(f"{dtype} {shape}").strip("'")
        raise refusal(f"{name}: {wanted!r} must be a row of integers (got {got})")
    if shape[0] * dtype.itemsize != member.file_size - start:
        rule = f"must have the {shape[0]:,} numbers that its header says"
        raise refusal(f"{name}: {wanted!r} {rule} (got {member.file_size - start:,} bytes)")
    return np.frombuffer(data.getbuffer(), dtype, shape[0], start)
