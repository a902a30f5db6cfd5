"""The engine is compiled on all cores at once: by helpers that leave their work in the cache and never
anything behind.
"""

import ctypes
import importlib
import os
import select
import signal
import sys

import psutil
import pytest

from allocator.hooks import HOOKS
from benchmarks.storm import small_ram
from cpus.compiled import Entry, call, kernel
from cpus.install import WORTHWHILE, compile_ahead, install

COUNT = WORTHWHILE + 1
HELPER_S = 60


@pytest.fixture
def ram():
    """A RAM with nothing in it but a text table."""
    return small_ram(2)


@pytest.fixture
def entries(ram, tmp_path, monkeypatch):
    """Entries of a file that the (empty) cache does not know; two host cores, so that there is one helper."""
    lines = ["from cpus.compiled import Text, entry"]
    lines += [
        f"@entry(Text('{hook.name}'))\ndef add_{i}(ram, a, b, c, d, e):\n    return a + {i}"
        for i, hook in zip(range(COUNT), HOOKS.values())
    ]
    (tmp_path / "many_entries.py").write_text("\n".join(lines) + "\n")
    monkeypatch.setenv("LUF_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})
    found = importlib.import_module("many_entries")
    yield [getattr(found, f"add_{i}") for i in range(COUNT)]
    del sys.modules["many_entries"]


@pytest.fixture
def helped(entries, monkeypatch):
    """Make the parent's first entry wait until a helper has finished one; gives who compiled what, (in the
    helper, name).
    """
    parent, compile_it = os.getpid(), Entry.compile
    get, put = os.pipe()
    by_parent = []

    def compile_and_tell(self, segment_type):
        if os.getpid() != parent:
            address = compile_it(self, segment_type)
            os.write(put, b"x")
            return address
        if not by_parent:
            assert select.select([get], [], [], HELPER_S)[0], "no helper has compiled anything"
        by_parent.append(self.name)
        return compile_it(self, segment_type)

    monkeypatch.setattr(Entry, "compile", compile_and_tell)
    yield by_parent
    os.close(get)
    os.close(put)


def test_helpers_compile_and_the_parent_loads(entries, helped, ram):
    """Each entry is compiled once, some by a helper, and all are in the cache; a second time there is nothing
    to do.
    """
    assert not any(item.is_compiled_or_cached(ram._type) for item in entries)
    assert compile_ahead(entries, ram) == COUNT
    assert 1 <= len(helped) < COUNT
    assert all(item.is_compiled_or_cached(ram._type) for item in entries)
    assert sum(bool(item.compiled) for item in entries) == len(helped)
    assert compile_ahead(entries, ram) == 0


def test_what_helpers_compiled_runs(entries, helped, ram):
    """Installed from the cache, each entry does what its source says."""
    install(ram, entries)
    assert [_call(ram, item, 100) for item in entries] == [100 + i for i in range(COUNT)]


@kernel
def _call_number(ram, number, a):
    return call(ram, number, a, 0, 0, 0, 0)


def _call(ram, item, a):
    return _call_number(ram, ram.layout.text[item.text.name], a)


def test_a_touched_source_is_no_new_one(entries, ram):
    """A checkout touches files: what was compiled of the same text counts as there."""
    entries[0].compile(ram._type)
    fresh = Entry(entries[0].text, entries[0].function)
    path = entries[0].function.__code__.co_filename
    os.utime(path, (os.stat(path).st_mtime + 60,) * 2)
    assert fresh.is_compiled_or_cached(ram._type)
    with open(path, "a", encoding="utf-8") as file:
        file.write("# changed\n")
    assert not fresh.is_compiled_or_cached(ram._type)


def test_an_error_is_told_by_who_installs_the_entry(entries, tmp_path, ram):
    """One entry does not compile: the others do, and the error is raised where it was before, by its own
    entry.
    """
    (tmp_path / "wrong_entry.py").write_text(
        "from cpus.compiled import Text, entry\n@entry(Text('hook_tick'))\n"
        "def wrong(ram, a, b, c, d, e):\n    return nobody(a)\n"
    )
    wrong = importlib.import_module("wrong_entry").wrong
    try:
        assert compile_ahead([wrong, *entries], ram) == COUNT + 1
        install(ram, entries)
        with pytest.raises(Exception, match="nobody"):
            install(ram, [wrong])
    finally:
        del sys.modules["wrong_entry"]


def test_a_killed_helper_costs_time_only(entries, monkeypatch, ram):
    """Its parent compiles what it had taken."""
    parent, compile_it = os.getpid(), Entry.compile
    monkeypatch.setattr(
        Entry,
        "compile",
        lambda self, kind: (
            compile_it(self, kind) if os.getpid() == parent else os.kill(os.getpid(), signal.SIGKILL)
        ),
    )
    install(ram, entries)
    assert [_call(ram, item, 0) for item in entries] == list(range(COUNT))


def test_an_interrupt_leaves_no_helper(entries, ram):
    """Ctrl-C while compiling: KeyboardInterrupt goes on, no process stays."""

    def interrupted(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compile_ahead(entries, ram, interrupted)
    assert psutil.Process().children() == []


@pytest.fixture(autouse=True)
def interruptible():
    """A shell's background job, as a test run may be, has SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Stopped(BaseException):
    """What a handler of SIGTERM raises."""


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM])
def lost(request, monkeypatch, ram):
    """A real signal arrives while LLVM calls Python back, where an exception is lost; gives what it must
    raise, and who compiled.
    """

    def stop(*_):
        raise Stopped

    parent, compile_it, begun = os.getpid(), Entry.compile, []

    def compile_and_signal(self, segment_type):
        if os.getpid() == parent:
            begun.append(self.name)
            ctypes.CFUNCTYPE(None)(lambda: signal.raise_signal(request.param))()
        return compile_it(self, segment_type)

    previous = signal.signal(signal.SIGTERM, stop)
    monkeypatch.setattr(Entry, "compile", compile_and_signal)
    yield KeyboardInterrupt if request.param == signal.SIGINT else Stopped, begun
    assert signal.signal(signal.SIGTERM, previous) is stop
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_while_compiling_is_never_lost(lost, entries, ram):
    """It ends the compiler at its next pass, in the first entry of all, and the helpers."""
    raised, begun = lost
    with pytest.raises(raised):
        compile_ahead(entries, ram)
    assert len(begun) == 1
    assert psutil.Process().children() == []


def test_a_signal_while_one_entry_is_installed_is_never_lost(lost, entries, ram):
    """No helper is there; the entry stays uncompiled, and can be compiled later."""
    raised, begun = lost
    with pytest.raises(raised):
        install(ram, entries[:1])
    assert (begun, entries[0].compiled) == ([entries[0].name], {})


def test_a_signal_while_the_parent_waits_for_a_helper_ends_both(entries, monkeypatch, ram):
    """The helper is at an entry for ever; the parent, which has compiled all others, is interrupted all the
    same.
    """
    parent, compile_it, by_parent = os.getpid(), Entry.compile, []
    get, put = os.pipe()

    def compile_for_ever(self, segment_type):
        if os.getpid() != parent:
            os.write(put, b"x")
            signal.pause()
        if not by_parent:
            assert select.select([get], [], [], HELPER_S)[0], "no helper has begun"
        address = compile_it(self, segment_type)
        by_parent.append(self.name)
        if len(by_parent) == COUNT - 1:
            signal.raise_signal(signal.SIGINT)
        return address

    monkeypatch.setattr(Entry, "compile", compile_for_ever)
    try:
        with pytest.raises(KeyboardInterrupt):
            compile_ahead(entries, ram)
    finally:
        os.close(get)
        os.close(put)
    assert len(by_parent) == COUNT - 1
    assert psutil.Process().children() == []


def test_one_core_compiles_alone(entries, monkeypatch, ram):
    """A helper would only take its parent's core."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0})
    assert compile_ahead(entries, ram) == 0
