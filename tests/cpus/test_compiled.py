"""Entries are reached through the text table, from kernels and by Python."""

import ctypes

from allocator.hooks import HOOK_IDLE, HOOK_MAP, HOOK_TICK
from benchmarks.storm import small_ram
from cpus import install as install_module
from cpus.compiled import (
    Entry,
    call,
    entry,
    install_python,
    kernel,
)
from cpus.install import install
from designs.memory_map import MACHINE

FIRST, SECOND, PYTHON = HOOK_MAP, HOOK_TICK, HOOK_IDLE  # any places that take five


@entry(FIRST)
def add_up(ram, a, b, c, d, e):
    """Add up, weighted, so that the order of arguments shows."""
    return a + 10 * b + 100 * c + 1000 * d + 10000 * e


@entry(SECOND)
def call_the_first(ram, a, b, c, d, e):
    """Entries call entries; the RAM comes along."""
    ram.run_tokens[0] += 1
    return call(ram, FIRST, e, d, c, b, a)


@entry(FIRST)
def multiply(ram, a, b, c, d, e):
    """Another one in the same place."""
    return a * b * c * d * e


@kernel
def _call_number(ram, number, a, b, c, d, e):
    return call(ram, number, a, b, c, d, e)


def _call(ram, text, *arguments):
    return _call_number(ram, MACHINE.text[text.name], *arguments)


def test_entries_are_called_through_the_table():
    """From a kernel, from an entry, with all five arguments and the RAM; a later entry replaces an earlier
    one.
    """
    ram = small_ram(2)
    install(ram, [add_up, call_the_first])
    assert _call(ram, FIRST, 1, 2, 3, 4, 5) == 54321
    assert _call(ram, SECOND, 1, 2, 3, 4, 5) == 12345
    assert ram.run_tokens[0] == 1
    install(ram, [multiply])
    assert _call(ram, SECOND, 1, 2, 3, 4, 5) == 120


def test_each_machine_has_its_own_table():
    """Two RAMs, two designs, one compiled caller."""
    one, other = small_ram(2), small_ram(2)
    install(one, [add_up])
    install(other, [multiply])
    assert [_call(ram, FIRST, 1, 1, 1, 1, 2) for ram in (one, other)] == [21111, 2]


def test_a_python_function_is_an_entry_too():
    """Compiled code calls it with five int64, negative ones too, and gets its int."""
    ram = small_ram(2)
    seen = []

    def listen(*arguments):
        seen.append(arguments)
        return -7

    keep = install_python(ram, PYTHON, listen)
    assert _call(ram, PYTHON, 1, -2, 1 << 62, -(1 << 63), 0) == -7
    assert seen == [(1, -2, 1 << 62, -(1 << 63), 0)]
    # what must be kept is what is called
    assert ctypes.cast(keep, ctypes.c_void_p).value == ram.text[MACHINE.text[PYTHON.name]]


def test_progress_is_told_of_what_is_compiled_alone(monkeypatch, tmp_path):
    """Compiling takes long at the first run: name, number and how many. What the cache holds is loaded, and
    nothing is reported.
    """
    monkeypatch.setattr(install_module, "compile_ahead", lambda *_: 0)
    ram, reported = small_ram(2), []
    fresh = [Entry(item.text, item.function) for item in (add_up, call_the_first)]
    monkeypatch.setenv("LUF_CACHE_DIR", str(tmp_path))
    install(ram, fresh, lambda *what: reported.append(what))
    assert reported == [("add_up", 0, 2), ("call_the_first", 1, 2)]
    install(ram, [Entry(item.text, item.function) for item in fresh], lambda *what: reported.append(what))
    assert len(reported) == 2
