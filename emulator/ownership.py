"""Prove whose a half-written folder is, and that nobody writes to it any more: only then is it removed.

The proof is the file `owner` in it: it names the folder's own inode, and its maker holds a lock on it, which
the kernel ends with the process, whatever namespace that was in. Neither a name nor an age proves anything,
and a copy of a folder is not the folder.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import suppress

OWNER = "owner"
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def claim(parent: int, name: str) -> int:
    """Leave the proof that a folder of the open folder `parent` is ours; it holds until what is returned is
    closed. It is locked before it says so. Raises OSError.
    """
    folder = os.open(name, FOLDER, dir_fd=parent)
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        owner = os.open(OWNER, flags, 0o600, dir_fd=folder)
        try:
            fcntl.flock(owner, fcntl.LOCK_EX)
            os.write(owner, _proof(folder))
        except BaseException:
            os.close(owner)
            raise
        return owner
    finally:
        os.close(folder)


def remove_orphan(parent: int, name: str) -> None:
    """Remove a folder with all it holds, if it is proved to be ours and its maker dead."""
    with suppress(OSError):  # no folder, no proof, or a lock: its maker lives
        folder = os.open(name, FOLDER, dir_fd=parent)
        try:
            if _is_orphan(folder):
                shutil.rmtree(name, dir_fd=parent)
        finally:
            os.close(folder)


def _is_orphan(folder: int) -> bool:
    owner = os.open(OWNER, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        said, proof = os.read(owner, 200), _proof(folder)
        return said == proof and os.fstat(owner).st_uid == os.fstat(folder).st_uid == os.getuid()
    finally:
        os.close(owner)


def _proof(folder: int) -> bytes:
    return b"luf writes to this folder, inode %d, while this file is locked\n" % os.fstat(folder).st_ino
