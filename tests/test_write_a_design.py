"""docs/write-a-design.md: each step appends its code to a file, is run from another folder, and does what the
text says.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cpus.code_cache import CodeCache
from designs import DesignError, design
from emulator import load_machine, run_design
from emulator.cli import main

DOCUMENT = Path(__file__).parents[1] / "docs" / "write-a-design.md"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
SAID = re.compile(r"^step (\d): (clean|not clean)(?:, ([\d,]+) shootdowns)?$", re.M)
COMMAND = re.compile(r"^luf (run my_design\.py:Eight --machine .*)$", re.M)
STEPS = 8


def text() -> str:
    return DOCUMENT.read_text()


def file_after(step: int, folder: Path) -> Path:
    """Write the file as it is after a step."""
    file = folder / "my_design.py"
    file.write_text("\n\n".join(BLOCK.findall(text())[:step]))
    return file


def small():
    return load_machine("guest-8cpu", scale=16)


def run(chosen, **options):
    return run_design(chosen, small(), "tiny8:scale=1", tokens=1, leases=1, seed=1, **options)


def test_there_are_eight_steps_and_a_result_for_each():
    assert len(BLOCK.findall(text())) == STEPS
    assert [int(step) for step, *_ in SAID.findall(text())] == list(range(1, STEPS + 1))


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_step(step, tmp_path, monkeypatch):
    """The page's own command line runs the file so far from any folder, clean or not and with exactly the
    shootdowns that the text says.
    """
    file_after(step, tmp_path)
    monkeypatch.chdir(tmp_path)
    (command,) = COMMAND.findall(text())
    code = main([*shlex.split(command), "--json", "result.json"])
    (found,) = json.loads((tmp_path / "result.json").read_text())["runs"]
    _, verdict, shootdowns = SAID.findall(text())[step - 1]
    assert (code == 0) == (not found["violations"]) == (verdict == "clean")
    if shootdowns:
        assert f"{found['tlb_shootdowns']:,}" == shootdowns


def test_the_last_step_looks_inside(tmp_path):
    """An object is as good as a name, as in a notebook."""
    names: dict = {}
    exec(compile(file_after(STEPS, tmp_path).read_text(), "<notebook>", "exec"), names)
    rounds, result = names["rounds_of"](names["Eight"](), small())
    assert result.clean
    assert rounds > 0


def test_a_new_design_leaves_the_engine_alone(tmp_path, monkeypatch):
    """Nothing but the design's own file is compiled: this process saves no other code to the cache."""
    run("linux")
    saved, save = set(), CodeCache.save_overload

    def noted(cache, *what):
        saved.add(cache.folder.name.rpartition("-")[0])
        save(cache, *what)

    monkeypatch.setattr(CodeCache, "save_overload", noted)
    file = file_after(5, tmp_path)
    file = file.rename(tmp_path / "brand_new_design.py")
    file.write_text(file.read_text() + f"# {tmp_path}\n")
    run(f"{file}:Eight")
    assert saved == {"luf_design_brand_new_design"}


HEAD = "from designs.design import Design, hook\n\n\n"
TICK = '@hook("tick")\ndef f(ram, cpu, a, b, c, d):\n    {}\n\n\n'
CLASS = 'class Mine(Design):\n    """mine"""\n\n    name = "mine"\n    hooks = ({})\n'
STATISTICS = CLASS.format("") + "\n    def statistics(self, ram):\n        {}\n"
FIELDS = CLASS.format("") + "\n    def fields(self, sizes):\n        return {}\n"
NAMED = CLASS.format("").replace('"mine"\n    hooks', '"{}"\n    hooks')
PARAMETERS = CLASS.format("") + "    parameters = {}\n"
MISTAKES = {
    "hook name": (
        '@hook("pte_clear")\ndef f(ram, cpu, a, b, c, d):\n    return 0\n',
        4,
        "did you mean 'pte_cleared'?",
    ),
    "hook signature": ('@hook("tick")\ndef f(ram, cpu):\n    return 0\n', 4, "must take six arguments"),
    "exception at import": ("X = 1\nY = X // 0\n", 5, "ZeroDivisionError"),
    "syntax": ("def f(:\n    pass\n", 4, "SyntaxError"),
    "import": ("import no_such_module_anywhere\n", 4, "ModuleNotFoundError"),
    "undefined name": (
        TICK.format("return nowhere") + CLASS.format("f,"),
        6,
        "not compile: NameError: name 'nowhere' is not defined",
    ),
    "dict of the module": (
        "D = {1: 2}\n" + TICK.format("return D[1]") + CLASS.format("f,"),
        7,
        "Untyped global name 'D': Cannot",
    ),
    "object of the module": (
        "D = object()\n" + TICK.format("return D.x") + CLASS.format("f,"),
        7,
        "Untyped global name 'D'",
    ),
    "plain function": (
        "def g():\n    return 1\n\n\n" + TICK.format("return g()") + CLASS.format("f,"),
        10,
        "Untyped global name 'g'",
    ),
    "list of the module": (
        "D = [1]\n" + TICK.format("return D[0]") + CLASS.format("f,"),
        7,
        "The use of a reflected list",
    ),
    "print": (
        TICK.format("print(cpu)") + CLASS.format("f,"),
        6,
        "print in f would reach nobody; trace(ram, ",
    ),
    "type": (TICK.format('return "a" + cpu') + CLASS.format("f,"), 6, "does not compile"),
    "no result": (TICK.format("ram.tmp_mask[cpu, 0] = 0") + CLASS.format("f,"), 6, "No conversion from none"),
    "no such word": (TICK.format("return ram.no_such_word[cpu]") + CLASS.format("f,"), 6, "no_such_word"),
    "sys.exit": ("import sys\n\nsys.exit(3)\n", 6, "SystemExit: 3"),
    "no comma": (
        TICK.format("return 0") + CLASS.format("f"),
        13,
        "(got one function); did you forget a comma, hooks = (f,)?",
    ),
    "hook twice": (
        TICK.format("return 0") + TICK.format("return 1").replace("def f", "def g") + CLASS.format("f, g"),
        18,
        "Mine.hooks must hold one function for each hook (got f and g for tick)",
    ),
    "not a hook": (
        "def f(ram):\n    return 0\n\n\n" + CLASS.format("f,"),
        12,
        "must hold functions decorated with @hook",
    ),
    "name of two lines": (
        NAMED.format(r"a b\n c"),
        7,
        "Mine.name must be a word that reports can use, on one line, without '/', at most 60 characters (",
    ),
    "long name": (NAMED.format("x" * 61), 7, "at most 60 characters (got 'xxxxxxxx"),
    "name of a path": (NAMED.format("e/../../x"), 7, "(got 'e/../../x')"),
    "no name": (NAMED.format(""), 7, "(got '')"),
    "parameters are a list": (
        PARAMETERS.format('["a"]'),
        9,
        "Mine.parameters must be a dict, name -> value -> what it means (got ['a'])",
    ),
    "parameter is a number": (
        PARAMETERS.format('{"a": 5}'),
        9,
        "Mine.parameters['a'] must be a dict of texts, value -> what it means",
    ),
    "parameter without values": (PARAMETERS.format('{"a": {}}'), 9, "the default first (got {})"),
    "parameter of numbers": (PARAMETERS.format('{"a": {1: "one"}}'), 9, "(got {1: 'one'})"),
    "too many fields": (FIELDS.format("{f'f{i}': (1,) for i in range(99)}"), 10, "at most 48"),
    "state too large": (FIELDS.format("{'f': (1 << 20, 1 << 20)}"), 10, "MiB"),
    "fields raise": (FIELDS.format("{'f': (sizes.nr_cats,)}"), 11, "nr_cats"),
    "bad shape": (FIELDS.format("{'f': 3}"), 10, "one or two sizes"),
    "hook signature, no arguments": (
        '@hook("tick")\ndef f(ram, cpu):\n    return 0\n',
        4,
        "(ram, cpu, a, b, c, d) (got ram, cpu)",
    ),
    "hook signature, arguments": (
        '@hook("keep")\ndef f(ram, cpu):\n    return 0\n',
        4,
        "(ram, cpu, pfn, key, c, d) (got ram, cpu)",
    ),
    "statistics raise": (STATISTICS.format('raise ValueError("boom")'), 11, "ValueError: boom"),
    "statistics, no dict": (
        STATISTICS.format("return 5"),
        10,
        "statistics must return a dict, name -> what JSON has types for (got int)",
    ),
    "findings, no list": (
        STATISTICS.format('return {"findings": "a ring ran over"}'),
        10,
        "statistics must have a list of sentences as 'findings' (got 'a ring ran over')",
    ),
    "statistics, no name": (STATISTICS.format("return {1: 2}"), 10, "(got 1 for a name)"),
    "statistics, of numpy": (
        STATISTICS.format("return {'clock': ram.cpu_clock[0]}"),
        10,
        "(got int64 for 'clock': Encoding objects",
    ),
    "prepare raises": (
        CLASS.format("") + "\n    def prepare(self, ram):\n        ram.design['f'][:] = 1\n",
        11,
        "KeyError",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence_with_file_and_line(mistake, tmp_path):
    code, line, words = MISTAKES[mistake]
    file = tmp_path / "mine.py"
    file.write_text(HEAD + code)
    with pytest.raises(DesignError) as caught:
        run(design(f"{file}:Mine"))
    place = f"{file}:{line}: "
    assert str(caught.value).startswith(place)
    assert words in str(caught.value)


def test_no_such_class_names_those_that_are_there(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(HEAD + CLASS.format(""))
    with pytest.raises(DesignError, match=r"designs in this file: Mine"):
        design(f"{file}:Yours")


def test_the_command_line_says_it_in_one_line(tmp_path):
    """Exit code 2 and no traceback; LUF_DEBUG=1 shows it."""
    file = tmp_path / "mine.py"
    file.write_text(HEAD + TICK.format("return nowhere") + CLASS.format("f,"))
    plain, debug = (_run_here(tmp_path, level) for level in ("0", "1"))
    assert plain.returncode == debug.returncode == 2
    assert plain.stderr.strip().startswith(f"luf: {file}:6: f does not compile")
    assert "Traceback" not in plain.stderr
    assert "Traceback" in debug.stderr


def _run_here(folder: Path, debug: str) -> subprocess.CompletedProcess:
    code = "import sys; from emulator.cli import main; sys.exit(main(['run', 'mine.py:Mine']))"
    env = os.environ | {"LUF_DEBUG": debug, "PYTHONPATH": str(DOCUMENT.parents[1])}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
