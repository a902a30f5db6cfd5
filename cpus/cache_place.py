"""Choose the folder that compiled code is loaded from, by one rule for every way to it.

What is kept there are pickles, so who can write to the folder decides what we execute. It must be ours, and
writable by nobody else; and so that nobody can put another in its place, each folder on the way to it must
be root's or ours, and either writable by nobody else or sticky, as /tmp is. Once this holds, nobody else can
end it. What is missing is made with mode 0700, whatever the umask. A variable that holds no absolute path
(an empty $XDG_CACHE_HOME, a relative $HOME) names no folder, as the XDG rules have it: the working directory
is never meant.
"""

from __future__ import annotations

import errno
import os
import pwd
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class CacheError(ValueError):
    """There is no folder from which code may be loaded safely: one sentence."""


def cache_root() -> Path:
    """Give the folder of compiled code: $LUF_CACHE_DIR, else one in the user's cache, else in the temporary
    folder. Raises CacheError.
    """
    if wanted := os.environ.get("LUF_CACHE_DIR"):
        try:
            return _private(Path(wanted))
        except OSError as error:
            got = f"got {wanted}: {error.strerror}"
            raise CacheError(f"LUF_CACHE_DIR must name a folder that can be written to ({got})") from error
    failed = []
    for folder in _usual():
        try:
            return _private(folder)
        except OSError as error:
            failed.append(f"{folder}: {error.strerror}")
    raise CacheError(
        f"compiled code must be kept in some folder (got {', '.join(failed)}); set LUF_CACHE_DIR"
    )


def is_ours(found: os.stat_result) -> bool:
    """Tell whether nobody else can have written what `lstat` or `fstat` found."""
    return found.st_uid == os.getuid() and not found.st_mode & OTHERS_WRITE


def check_private(folder: Path) -> None:
    """Raise CacheError unless this is a folder that only we can write to."""
    found = folder.lstat()
    if not (stat.S_ISDIR(found.st_mode) and is_ours(found)):
        raise _refusal(folder, folder, found)


def _usual() -> Iterator[Path]:
    """Give the places for the cache of a user who names none, the best first."""
    home = os.environ.get("HOME", "")
    with suppress(KeyError):  # a user whom nobody knows, as in some containers
        home = home or pwd.getpwuid(os.getuid()).pw_dir
    user = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not user.is_absolute():
        user = Path(home) / ".cache"
    if user.is_absolute():
        yield user / "luf-emulator"
    yield Path(tempfile.gettempdir()) / f"luf-emulator-{os.getuid()}"


def _private(folder: Path) -> Path:
    """Make a folder that only we can write to, and give its real path. Raises CacheError if others can change
    it or the way to it, OSError if it cannot be made or written to.
    """
    if not folder.is_absolute():
        raise CacheError(f"LUF_CACHE_DIR must name an absolute path (got {folder})")
    if folder.is_symlink():
        check_private(folder)
    place = Path(os.path.realpath(folder))
    for part in (*reversed(place.parents), place):
        with suppress(FileExistsError):
            if not part.exists():
                part.mkdir(mode=0o700)
        found = part.lstat()
        if part != place and not stat.S_ISDIR(found.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if part != place and not _is_safe_way(found):
            raise _refusal(folder, part, found)
    check_private(place)
    if not os.access(place, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "no permission")
    return place


def _is_safe_way(found: os.stat_result) -> bool:
    """Tell whether nobody else can put another folder in the place of one that lies in this one."""
    if found.st_uid not in (
        os.getuid(),
        0,
        os.stat("/").st_uid,
    ):  # in some containers root has another number
        return False
    return not found.st_mode & OTHERS_WRITE or bool(found.st_mode & stat.S_ISVTX)


def _refusal(folder: Path, part: Path, found: os.stat_result) -> CacheError:
    where = "" if part == folder else f"on the way to it {part}, "
    got = f"{where}{stat.filemode(found.st_mode)} of user {found.st_uid}"
    rule = "the cache of compiled code must be a folder that only you can write to"
    return CacheError(f"{folder}: {rule} (got {got}); set LUF_CACHE_DIR")
