"""The cache is a folder that only we can write to, by every way to it, and nobody else can put another in its
place.
"""

from __future__ import annotations

import os

import pytest

from cpus import cache_place
from cpus.cache_place import CacheError, cache_root


def by_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("LUF_CACHE_DIR", str(tmp_path / "wanted"))
    return tmp_path / "wanted"


def by_user(monkeypatch, tmp_path):
    monkeypatch.delenv("LUF_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "luf-emulator"


def by_temporary_folder(monkeypatch, tmp_path):
    """The user's own cannot be written to."""
    (tmp_path / "file").touch()
    monkeypatch.delenv("LUF_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(cache_place.tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path / f"luf-emulator-{os.getuid()}"


WAYS = pytest.mark.parametrize("way", [by_variable, by_user, by_temporary_folder])


@WAYS
def test_the_cache_is_made_for_us_alone(monkeypatch, tmp_path, way):
    """Whatever the umask; others may be allowed to read it."""
    place = way(monkeypatch, tmp_path)
    mask = os.umask(0)
    try:
        assert cache_root() == place
    finally:
        os.umask(mask)
    assert place.stat().st_mode & 0o777 == 0o700
    place.chmod(0o755)
    assert cache_root() == place


@WAYS
@pytest.mark.parametrize("wrong", ["others write", "group writes", "link", "file", "owner"])
def test_a_cache_that_others_can_write_to_is_refused(monkeypatch, tmp_path, way, wrong):
    """Who can write there decides what is executed. One sentence; nothing is loaded from there."""
    place = way(monkeypatch, tmp_path)
    if wrong == "link":
        place.symlink_to(tmp_path)
    elif wrong == "file":
        place.touch()
    else:
        place.mkdir()
    if wrong.endswith(("write", "writes")):
        place.chmod(0o777 if wrong == "others write" else 0o770)
    if wrong == "owner":
        user = os.getuid()
        place = place.rename(str(place).replace(f"-{user}", f"-{user + 1}"))
        monkeypatch.setattr(os, "getuid", lambda: user + 1)
    rule = "the cache of compiled code must be a folder that only you can write to"
    with pytest.raises(CacheError, match=rf"^{place}: {rule} \(got .*\); set LUF_CACHE_DIR$"):
        cache_root()


def test_a_wanted_cache_is_used_or_refused(monkeypatch, tmp_path):
    """Who names a folder wants that one, and not silently another."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("LUF_CACHE_DIR", str(tmp_path / "new" / "cache"))
    assert cache_root() == tmp_path / "new" / "cache"
    monkeypatch.setenv("LUF_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.raises(
        CacheError, match=rf"^LUF_CACHE_DIR must name .* \(got {tmp_path}/file/cache: Not a directory\)$"
    ):
        cache_root()
    monkeypatch.setenv("LUF_CACHE_DIR", "here")
    with pytest.raises(CacheError, match=r"^LUF_CACHE_DIR must name an absolute path \(got here\)$"):
        cache_root()


@pytest.mark.parametrize("value", ["", "here", "./here"])
def test_a_user_cache_that_is_no_absolute_path_is_not_one(monkeypatch, tmp_path, value):
    """As the XDG rules have it: the working directory is no place for a cache."""
    monkeypatch.delenv("LUF_CACHE_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    assert cache_root() == tmp_path / ".cache" / "luf-emulator"


@pytest.mark.parametrize("home", ["", "here", None])
def test_a_home_that_is_no_absolute_path_is_not_one(monkeypatch, tmp_path, home):
    """Nor is the working directory: the password file's is meant, or, if that knows none, the temporary
    folder.
    """
    monkeypatch.delenv("LUF_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(cache_place.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    if home is None:
        monkeypatch.delenv("HOME", raising=False)
    else:
        monkeypatch.setenv("HOME", home)
    monkeypatch.chdir(tmp_path)

    class Entry:
        pw_dir = str(tmp_path / "known")

    monkeypatch.setattr(cache_place.pwd, "getpwuid", lambda _: Entry)
    wanted = tmp_path / "known" / ".cache" / "luf-emulator"
    if home == "here":
        wanted = tmp_path / "tmp" / f"luf-emulator-{os.getuid()}"
    assert cache_root() == wanted

    def unknown(_):
        raise KeyError

    monkeypatch.setattr(cache_place.pwd, "getpwuid", unknown)
    assert cache_root() == tmp_path / "tmp" / f"luf-emulator-{os.getuid()}"
    assert not (tmp_path / "here").exists()


@WAYS
@pytest.mark.parametrize(
    ("mode", "safe"), [(0o777, False), (0o775, False), (0o1777, True), (0o755, True), (0o700, True)]
)
def test_a_folder_on_the_way_that_others_can_write_to_is_refused(monkeypatch, tmp_path, way, mode, safe):
    """They could put another folder in the place of ours; not where only owners may (/tmp)."""
    shared = tmp_path / "shared"
    shared.mkdir()
    place = way(monkeypatch, shared)
    shared.chmod(mode)
    if safe:
        assert cache_root() == place
        assert place.stat().st_mode & 0o777 == 0o700
    else:
        with pytest.raises(
            CacheError, match=rf"^{shared}/.*: the cache .* \(got on the way to it {shared}, d"
        ):
            cache_root()
        assert not place.exists()


def test_a_folder_on_the_way_that_is_anothers_is_refused(monkeypatch, tmp_path):
    """Its owner can rename what lies in it; root is nobody else."""
    monkeypatch.setenv("LUF_CACHE_DIR", str(tmp_path / "theirs" / "cache"))
    (tmp_path / "theirs").mkdir()
    lstat = cache_place.Path.lstat

    def of_another(path):
        found = lstat(path)
        return os.stat_result((*found[:4], 4242, *found[5:])) if path.name == "theirs" else found

    monkeypatch.setattr(cache_place.Path, "lstat", of_another)
    with pytest.raises(CacheError, match=rf"got on the way to it {tmp_path}/theirs, drwx.* of user 4242\)"):
        cache_root()


def test_a_link_on_the_way_is_followed_once(monkeypatch, tmp_path):
    """What is used is where it leads to, and that way is judged: the link may be changed later."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.setenv("LUF_CACHE_DIR", str(tmp_path / "link" / "cache"))
    assert cache_root() == tmp_path / "real" / "cache"
    (tmp_path / "real").chmod(0o777)
    with pytest.raises(CacheError, match=f"on the way to it {tmp_path}/real, drwxrwxrwx"):
        cache_root()


def test_without_any_folder_the_sentence_names_all_that_were_tried(monkeypatch, tmp_path):
    """With why each cannot be had."""
    (tmp_path / "file").touch()
    by_user(monkeypatch, tmp_path / "file")
    monkeypatch.setattr(cache_place.tempfile, "gettempdir", lambda: str(tmp_path / "file"))
    with pytest.raises(CacheError, match=r"/luf-emulator: Not a directory, .*/luf-emulator-\d+: Not"):
        cache_root()
