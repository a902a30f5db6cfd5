"""TOML is the same language as Python, call for call; what is wrong is reported with file and place."""

from __future__ import annotations

import pytest

from workloads import Region, Script, workload
from workloads.script import ScriptError
from workloads.script_toml import script_from_toml

HEAD = (
    '[[region]]\nname = "heap"\npages = 64\nwritable = true\n[[region]]\nname = "file"\npages = 32\n'
    'file = "data"\nshared = true\n'
)


def written(tmp_path, text):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    return file


def one_thread(steps, more=""):
    return f'{HEAD}[[process]]\nname = "main"\n{more}threads = [[{steps}]]\n'


def test_toml_equals_python(tmp_path):
    """Two threads and a child, every kind of argument: the same workload to the last row."""

    def main(t):
        yield t.store("heap")
        yield t.meet("ready", 2)
        yield t.mprotect("heap", "PROT_READ|PROT_WRITE", page=8, pages=8)
        for n in (1, 2):
            yield t.fork("child")
            yield t.snapshot(f"before {n}")
            yield t.madvise("heap", "MADV_DONTNEED", 0, 4)
            for m in (1, 2, 3):
                yield t.store("heap", 4, 1, m)
            yield t.wait("gone")
        yield t.truncate("file")
        yield t.place("file")

    def other(t):
        yield [t.load("heap", count=3), t.meet("ready", 2)]
        yield t.until("gone", [t.try_load("file"), [t.load("heap", 0, 1), t.load("heap", 0, 1)]])

    def child(t):
        yield [t.exit("gone"), t.exit("gone")]

    regions = [Region("heap", 64, writable=True), Region("file", 32, file="data", shared=True)]
    ours = (
        Script("mine", "the same twice", regions)
        .process("main", [main, other], cpus=[0, 1])
        .process("child", [child], forked=True)
    )
    file = written(
        tmp_path,
        f"""description = "the same twice"
{HEAD}
[[process]]
name = "main"
cpus = [0, 1]
threads = [
  [["store", "heap"], ["meet", "ready", 2],
   ["mprotect", "heap", "PROT_READ|PROT_WRITE", {{page = 8, pages = 8}}],
   ["repeat", 2, [["fork", "child"], ["snapshot", "before {{n}}"], ["madvise", "heap", "MADV_DONTNEED", 0, 4],
                  ["store", "heap", 4, 1, 1], ["store", "heap", 4, 1, 2], ["store", "heap", 4, 1, 3],
                  ["wait", "gone"]]],
   ["truncate", "file"], ["place", "file"]],
  [["load", "heap", {{count = 3}}], ["meet", "ready", 2],
   ["until", "gone", [["try_load", "file"], ["repeat", 2, [["load", "heap", 0, 1]]]]]],
]
[[process]]
name = "child"
forked = true
threads = [[["repeat", 2, [["exit", "gone"]]]]]
""",
    )
    theirs = script_from_toml(file)
    one, two = ours.workload(), theirs.workload()
    assert (one.name, one.description) == (two.name, two.description)
    assert ours.snapshots == theirs.snapshots == {"before 1": 0, "before 2": 1}
    for mine, its in zip(one.processes, two.processes, strict=True):
        assert (mine.name, mine.regions, mine.cpus, mine.forked) == (
            its.name,
            its.regions,
            its.cpus,
            its.forked,
        )
        assert [rows.tolist() for rows in mine.threads] == [rows.tolist() for rows in its.threads]
    assert workload(str(file)).name == "mine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", "mine.toml: is not TOML"),
        ("", "mine.toml: 'process' is missing"),
        ("process = 3", "mine.toml: 'process' must be a list (got 3)"),
        (f"{HEAD}[[process]]\nthreads = []", "mine.toml: process 0: 'name' is missing"),
        (one_thread("", 'cpu = [1]\n'),
         "mine.toml: process 0: 'cpu' must be one of name, threads, region, cpus, forked"),
        (one_thread("", 'cpus = ["a"]\n'),
         "mine.toml: process 0: 'cpus' must be a list of CPU numbers (got ['a'])"),
        (f"{HEAD}size = 3\n" + one_thread("")[len(HEAD):],
         "mine.toml: region 1: 'size' must be one of name, pages, file, "),
        (one_thread("").replace("64", "-1"),
         "process 'main': 'pages' of region 'heap' must be a whole number from 1 to 134217728 (got -1)"),
        (one_thread("").replace("64", '"64"'),
         "mine.toml: region 0: 'pages' must be a whole number (got '64')"),
        (one_thread('["munmap", "heap"], ["mumap"]'),
         "process 'main' thread 0 step 1: 'call' must be one of load, store, "),
        (one_thread('["_range", "heap", 0, 1]'), "thread 0 step 0: 'call' must be one of load, store, "),
        (one_thread('["names"]'), "thread 0 step 0: 'call' must be one of load, store, "),
        (one_thread('"munmap"'), "thread 0 step 0: a step must be a list such as"),
        (one_thread('["munmap", "stack"]'),
         "thread 0 step 0: 'region' must be one of heap, file (got 'stack')"),
        (one_thread('["munmap", "heap", {first = 3}]'),
         "munmap(region, page=0, pages=None) (got an unexpected keyword argument 'first')"),
        (one_thread('["until", "stop"]'),
         "thread 0 step 0: 'until' must be followed by a flag and a list of steps (got ['stop'])"),
        (one_thread('["until", "stop", []]'), "'steps' must be at least one call (got none)"),
        (one_thread('["repeat", 3]'),
         "step 0: 'repeat' must be followed by a number and a list of steps (got [3])"),
        (one_thread('["repeat", 0, []]'),
         "step 0: 'repeat' must be a whole number from 1 to 1000000 (got 0)"),
        (one_thread('["repeat", 2, [["load", "heap"], ["snapshot", "a"]]]'),
         "step 0: repeated step 1: 'name' of a snapshot must be used"),
        (one_thread('["repeat", 2, [["load"]]]'),
         "step 0: repeated step 0: 'load' must be called as load(region, "),
        (one_thread('["repeat", 1000000, [["repeat", 1000000, [["load", "heap"]]]]]'),
         "process 0: steps, each as often as it is repeated, must be at most 2,000,000 in all (got 20000010"),
        (one_thread('["repeat", 1000000, [["repeat", 1000000, []]]]'),
         "process 0: steps, each as often as it is repeated, must be at most 2,000,000 in all (got 10000010"),
        (one_thread(", ".join(['["repeat", 500000, [["load", "heap"]]]'] * 3)),
         "process 0: steps, each as often as it is repeated, must be at most 2,000,000 in all (got 3000000)"),
        (one_thread('["load", ["heap"]]'), "step 0: 'region' must be one of heap, file (got ['heap'])"),
        (one_thread('["fork", ["heap"]]'), "step 0: 'child' must be a forked process of the script, but the"),
        (one_thread('["post", "' + "x" * 201 + '"]'), "step 0: 'flag' must be a name of at most 200 charact"),
        (one_thread('["wait", "a", 0xffffffffffffffff]'), "step 0: 'count' must be a whole number from 0 to"),
        (one_thread("").replace("64", "60000000000000"), "must be a whole number from 1 to 134217728 (got 6"),
        (one_thread("").replace("64", "64\nfile_offset = -1"),
         "'file_offset' of region 'heap' must be a whole number from 0 to 134217728 (got -1)"),
        (one_thread("").replace("64", "64\nfolio_order = 7"),
         "'folio_order' of region 'heap' must be a whole number from 0 to 0, and 0 if it maps no file (got"),
        (one_thread("").replace('"heap"', '"he\\nap"'), "'name' of region 'he\\nap' must be a name of at mo"),
        (one_thread("").replace('"heap"', '"he\\u001bap"'), "mine.toml: 'region[0].name' must be text witho"),
        (one_thread("").replace('"heap"', '""'), "'name' of region '' must be a name of at most 200"),
        ('name = "a\\nb"\n' + one_thread(""), "mine.toml: script: 'name' must be a name of at most 200 char"),
        ("".join(f'[[process]]\nname = "{n}"\nthreads = [[]]\n' for n in range(1025)),
         "'processes' must be from 1 to 1,024 (got 1,025)"),
        (f'[[process]]\nname = "p"\nthreads = [{"[], " * 257}]', "'threads' must be from 1, the main one, t"),
        ("".join(f'[[region]]\nname = "{n}"\npages = 1\n' for n in range(65)) + one_thread("")[len(HEAD):],
         "process 'main': 'regions' must be at most 64 (got 65)"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_file_and_place(tmp_path, text, message):
    file = written(tmp_path, text)
    with pytest.raises(ScriptError) as reported:
        script_from_toml(file).workload()
    assert str(reported.value).startswith(str(file))
    assert message in str(reported.value)
    assert len(str(reported.value)) < 450 + len(str(file))
