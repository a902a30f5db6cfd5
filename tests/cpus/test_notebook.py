"""A cell is run again with other code: what runs afterwards is what the notebook shows, whether or not the
cells below were run again.
"""

import linecache
from pathlib import Path

import pytest

from allocator.hooks import HOOK_IDLE
from benchmarks.storm import small_ram
from cpus.compiled import call, kernel
from cpus.install import install_at

HELPER = """
from cpus.compiled import entry, kernel
@kernel
def helper(x):
    return x + {}
"""
BETWEEN = """
@kernel
def between(x):
    return 100 * helper(x)
"""
HOOK = """
@entry(HOOK_IDLE)
def hook(ram, a, b, c, d, e):
    return between(a) + {}
"""


class Notebook:
    """Cells run in one name space, each under the file name that IPython gives it: there is no such file, but
    linecache knows its text.
    """

    def __init__(self, tmp_path: Path):
        self.names: dict = {"HOOK_IDLE": HOOK_IDLE}
        self.folder, self.cells = tmp_path / "ipykernel_4711", 0

    def run(self, text: str) -> None:
        self.cells += 1
        file = str(self.folder / f"{self.cells}.py")
        linecache.cache[file] = (len(text), None, text.splitlines(True), file)
        exec(compile(text, file, "exec"), self.names)


@pytest.fixture
def notebook(tmp_path):
    """Three cells that have been run: a helper, a kernel that calls it, a hook that calls that one."""
    made = Notebook(tmp_path)
    made.run(HELPER.format(1))
    made.run(BETWEEN)
    made.run(HOOK.format(0))
    return made


@kernel
def _call(ram, a):
    return call(ram, HOOK_IDLE, a, 0, 0, 0, 0)


def hook_of(notebook, ram):
    """Build a machine with the hook, as each run does, and call it."""
    install_at(ram, HOOK_IDLE, notebook.names["hook"])
    return _call(ram, 1)


def test_code_without_a_file_is_compiled_and_not_kept(notebook, tmp_path, monkeypatch):
    """Nobody else could tell what it depends on."""
    monkeypatch.setenv("LUF_CACHE_DIR", str(tmp_path / "cache"))
    assert notebook.names["between"](1) == 200
    assert hook_of(notebook, small_ram(2)) == 200
    kept = {path.name.split("-")[0] for path in tmp_path.rglob("*.code")}
    assert not kept & {"helper", "between", "hook"}
    assert not notebook.names["hook"].can_be_cached


def test_a_helper_that_is_defined_again_is_what_runs(notebook):
    """The cells that call it, directly or not, are not run again."""
    ram = small_ram(2)
    assert (notebook.names["between"](1), hook_of(notebook, ram)) == (200, 200)
    notebook.run(HELPER.format(2))
    assert notebook.names["hook"].is_compiled_or_cached(ram._type) is False
    assert (notebook.names["between"](1), hook_of(notebook, ram)) == (300, 300)
    assert notebook.names["hook"].is_compiled_or_cached(ram._type) is True


def test_cells_below_that_are_run_again_call_the_new_helper(notebook):
    """Then nothing is left of the old one."""
    ram = small_ram(2)
    assert hook_of(notebook, ram) == 200
    notebook.run(HELPER.format(2))
    notebook.run(HOOK.format(5))
    assert hook_of(notebook, ram) == 305
    notebook.run(BETWEEN)
    notebook.run(HOOK.format(6))
    assert hook_of(notebook, ram) == 306


def test_a_constant_and_a_closure_are_noticed_too(notebook):
    """Numba compiles the values of names, whatever they are."""
    notebook.run("LIMITS = (3, 4)\n@kernel\ndef limited(x):\n    return x * LIMITS[1]\n")
    limited = notebook.names["limited"]
    assert limited(2) == 8
    notebook.run("LIMITS = (3, 5)\n")
    assert limited(2) == 10
    notebook.run(
        "def make():\n    @kernel\n    def inner(x):\n        return helper(x)\n    return inner\n"
        "made = make()\n"
    )
    assert notebook.names["made"](1) == 2
    notebook.run(HELPER.format(7))
    assert notebook.names["made"](1) == 8


def test_what_has_not_changed_is_not_compiled_again(notebook):
    """A cell that is run again and says the same, other cells, an equal constant; also with recursion."""
    notebook.run(
        "LIMIT = 1000\n@kernel\ndef sum_to(n):\n    return 0 if n == 0 or n > LIMIT else n + sum_to(n - 1)\n"
    )
    ram, sum_to, between = small_ram(2), notebook.names["sum_to"], notebook.names["between"]
    assert (sum_to(4), between(1), hook_of(notebook, ram)) == (10, 200, 200)
    compiled = notebook.names["hook"].compiled
    notebook.run("LIMIT = 10 ** 3\nOTHER = 1\n")
    assert (sum_to(4), between(1), hook_of(notebook, ram)) == (10, 200, 200)
    assert sum(sum_to.stats.cache_misses.values()) == 1
    assert sum(between.stats.cache_misses.values()) == 1
    assert notebook.names["hook"].compiled is compiled


def test_a_helper_that_was_missing_is_found_once_it_is_there(tmp_path):
    """What did not compile is tried again, when a name that it uses has come to mean something."""
    notebook = Notebook(tmp_path)
    notebook.run("from cpus.compiled import kernel\n@kernel\ndef early(x):\n    return late(x)\n")
    with pytest.raises(Exception, match="late"):
        notebook.names["early"](1)
    notebook.run("@kernel\ndef late(x):\n    return x + 41\n")
    assert notebook.names["early"](1) == 42


def test_planted_plain_numba_calls_the_old_helper(notebook):
    """What this is for. Should this fail one day, notebook.py may go."""
    notebook.run(
        HELPER.format(1).replace("@kernel", "@numba.njit").replace("import entry", "import numba, entry")
    )
    notebook.run(BETWEEN.replace("@kernel", "@numba.njit"))
    assert notebook.names["between"](1) == 200
    notebook.run(HELPER.format(2).replace("@kernel", "@numba.njit"))
    assert notebook.names["between"](1) == 200
