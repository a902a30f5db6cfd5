"""Small sound files of every kind that luf reads: what the campaign makes its odd inputs from."""

from __future__ import annotations

import io
import json
import random
import re
import tempfile
import tomllib
from collections.abc import Mapping
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from emulator.golden.command import Emulation
from emulator.golden.data import read_recording
from emulator.machine import MACHINES
from emulator.repeats.result import repeats
from emulator.result import to_json
from tests.campaigns.fuzzing.documents import ODD_NUMBERS, Document, litmus
from tests.emulator.fixed import REUSE, comparison, run
from tests.emulator.test_timeline import with_timeline
from tests.golden.recorded import ROWS, Fake, cell, mirror, write
from tests.golden.recorded import run as pressure_run

ROOT = Path(__file__).parents[3]
TESTS = ROOT / "workloads" / "litmus" / "tests"
Arrays = Mapping[str, np.ndarray]

SCRIPT = """
name = "calls"
[[region]]
name = "heap"
pages = 64
writable = true
[[region]]
name = "file"
pages = 16
file = "data"
file_offset = 4
folio_order = 2
[[process]]
name = "main"
cpus = [0, 1]
threads = [
  [["store", "heap"], ["meet", "ready", 2],
   ["repeat", 3, [["snapshot", "before {n}"], ["munmap", "heap", {page = 8, pages = 4}],
                  ["mmap", "heap", 8, 4], ["repeat", 2, [["load", "heap", 0, 2, 100]]]]],
   ["mprotect", "heap", "PROT_READ", 0, 8], ["madvise", "heap", "MADV_DONTNEED", 16, 8], ["post", "stop"]],
  [["load", "file"], ["meet", "ready", 2], ["write", "file", 3, 1], ["spin", "stop"],
   ["truncate", "file", 8]],
]
[[process]]
name = "other"
threads = [[["load", "file", 0, 4]]]
[[process.region]]
name = "file"
pages = 8
file = "data"
shared = true
"""

LITMUS = """
about:     After munmap has returned, nobody reads through the old translation.
covers:    munmap, I5
catches:   none
with:      pages = 1, 16
with:      change = again: munmap m; mmap m, protect: mprotect m PROT_READ
needs:     pgfault > 0
forbidden: violation
possible:  nr_tlb_remote_flush > 0
machine:   cpus = 3, memory = 1024 + 512, tlb.pcid = false
region:    m {pages} writable
region:    f 16 file=data offset=4 order=1 shared
region:    own 8 of=q writable

p @0            | p @1              | q @last    | child forked
store m         | load m            | load f     | store m
meet there      | meet there        | store own  | exit over
fork child      | until gone        | meet done  |
repeat 3 k      | try_load m 0 1 2  |            |
load m 0 1 k+1  | end               |            |
{change}        | meet done         |            |
end             |                   |            |
post gone       |                   |            |
wait over       |                   |            |
"""

REPLAYS = (
    """
why = "a walk"
design = "luf"
litmus = "munmap:pages=16,access=try_load"
seed = 3
schedule = "walk:distance=300,seed=7,window_ns=20000000,tick_ns=500000"
debug_luf = true
""",
    """
design = "linux"
workload = "churn"
machine = "guest-8cpu"
cpus = 2
scale = 32.0
tokens = 1
check = "states"
schedule = "listed:seed=1"
switches = [[0, 1204, 1], [1, 88, 0]]
set = { "sysctl.swappiness" = 10, "tlb.asid_slots" = 2 }
signature = "deadlock"
fingerprint = "5d0c"
""",
)

DESIGN = """
from allocator.tlb_flush import flush_tlb_page
from designs.design import Design, hook
from designs.state import own_fields

def mine_fields(sizes):
    return {"flushed": (sizes.nr_cpus,), "rounds": (2, 3)}

state_of = own_fields("mine", mine_fields)

@hook("pte_cleared")
def mine(ram, cpu, mm, vpn, pte, object):
    flush_tlb_page(ram, cpu, mm, vpn)
    state_of(ram).flushed[cpu] += 1
    return 0

class Mine(Design):
    \"\"\"A design of somebody's own.\"\"\"

    name = "mine"
    hooks = (mine,)
    parameters = {"mode": {"slow": "as ever", "fast": "at once"}}

    def fields(self, sizes):
        return mine_fields(sizes)

    def statistics(self, ram):
        return {"flushed": int(ram.design["flushed"].sum()), "mode": self.chosen["mode"]}
"""

WORKLOAD = """
from workloads import Region, Script

def main(t):
    yield t.store("heap")
    for n in range(3):
        yield [t.munmap("heap", page=8, pages=4), t.mmap("heap", page=8, pages=4)]

def made():
    script = Script("example", regions=[Region("heap", 64, writable=True)])
    script.process("main", [main], cpus=[0])
    return script
"""

# what may stand in the place of a value, an expression or a line of a user's Python file
ODD_PYTHON = (
    "None", "-1", "2**70", "[]", "{}", "()", "'x'", "'\\x1b[2J'", "float('nan')", "object()", "lambda: 0",
    "1 / 0", "int", "{'a': object()}", "missing", "raise_", "(yield)", "[[1]] * 3", "'a' * 10_000",
    "b'\\xff'", "Ellipsis", "{1: 2}",
)  # fmt: skip


def toml(text: str) -> Document:
    return Document(tomllib.loads(text), "toml")


def json_of(text: str) -> Document:
    return Document(json.loads(text), "json")


@cache
def machines() -> tuple[Document, ...]:
    """Machines that ship, each whole: what it is `like` is merged by the reader."""
    return tuple(toml(path.read_text(encoding="utf-8")) for path in sorted(MACHINES.glob("*.toml")))


@cache
def scripts() -> tuple[Document, ...]:
    written = (ROOT / "examples" / "written.toml").read_text(encoding="utf-8")
    return toml(SCRIPT), toml(written)


@cache
def litmus_tests() -> tuple[Document, ...]:
    """A test with every kind of head, and some that ship."""
    shipped = ("munmap", "munmap-forked", "lazy-then", "parallel-zaps")
    texts = [LITMUS, *((TESTS / f"{name}.litmus").read_text(encoding="utf-8") for name in shipped)]
    return tuple(litmus(re.sub(r"#.*", "", text)) for text in texts)


@cache
def replays() -> tuple[Document, ...]:
    """Replay files: a test in it, a test by name, a workload on a machine; with a schedule and without."""
    kept = sorted((ROOT / "tests" / "emulator" / "replays").glob("*.toml"))
    stored = [toml(path.read_text(encoding="utf-8")) for path in kept if path.stem != "counting"]
    return (*stored, *map(toml, REPLAYS))


@cache
def results() -> tuple[Document, ...]:
    """A plain comparison, one with a violation, one with timelines and whatever a design says of itself, runs
    of several seeds.
    """
    findings = {"findings": ["a page was freed twice"], "takeoff": {"p50_ns": 3}}
    more = run(
        "luf", design_stats=findings, debug_luf={"records": 3, "findings": 1}, memory_text="memory 60 %"
    )
    timed = with_timeline("linux", {"kswapd": {0: 100, 90: 1}, "migration": {3: 4}})
    seeds = [run(design, seed=seed) for seed in (1, 2) for design in ("linux", "luf")]
    wholes = (comparison(), comparison(run("none", violations=[REUSE], accounted={})),
              comparison(timed, more), repeats(seeds))  # fmt: skip
    return tuple(json_of(to_json(whole)) for whole in wholes)


@cache
def recordings() -> tuple[Document, ...]:
    """golden.json of a small recording: three cells and two pressure runs."""
    table = {
        "docs": {"a_munmap": "munmap of P pages"},
        "environments": {"guest": {"uname": "Linux guest 6.12.117 x86_64", "ncpu": 8}},
        "micro": [
            cell(),
            cell("b_madvise", 4, 64, (2, 3, 5)),
            cell("f_fork", 1, 4, events={"remote_shootdown/4": 0.333}),
        ],
        "pressure": [pressure_run(), pressure_run("f8_d0n0", ipis=700, kswapd=0.9)],
    }
    return (Document(table, "json"),)


@cache
def trace() -> tuple[dict[str, np.ndarray], Document]:
    """A recorded trace of forty rows by three threads."""
    regions = {"weights": (64, True, False), "heap": (16, False, True), "main_stack": (8, False, True),
               "thread_stack": (16, False, True), "main_text": (8, True, False),
               "libs": (8, True, True)}  # fmt: skip
    about = {
        "format": 1, "page_size": 4096, "what": "a small trace",
        "regions": [
            {"id": i, "name": name, "pages": pages, "file_backed": backed, "writable": writable}
            for i, (name, (pages, backed, writable)) in enumerate(regions.items())
        ],
        "mappings": [{"region": name, "first_page": 0, "pages": pages, "vpn": 1024 * (i + 1), "label": name}
                     for i, (name, (pages, *_)) in enumerate(regions.items())],
        "evals": [{"i": 0, "kind": "prompt", "tokens": 5}, {"i": 1, "kind": "generation", "tokens": 1}],
        "rows": 40, "mark_names": {"1": "ggml_compute_forward_add", "2": "ggml_compute_forward"},
        "model": {"file": "small.gguf"}, "run": {"threads": 3}, "memory_syscalls": [],
    }  # fmt: skip
    rows = np.arange(40)
    arrays = {
        "thread": (rows % 3).astype(np.uint8),
        "page": (rows * 5 % 8).astype(np.uint32),
        "region": (rows // 3 % 6).astype(np.uint8),
        "kind": np.where(rows // 3 % 6 == 4, 2, 0).astype(np.uint8),
        "count": (rows + 1).astype(np.uint32),
        "eval_start": np.array([4, 22], np.uint32),
        "mark_pos": np.array([6, 7, 8, 27, 28, 29], np.uint32),
        "mark_thread": np.array([0, 1, 2, 0, 1, 2], np.uint8),
        "mark_id": np.array([1, 1, 1, 1, 1, 1], np.uint8),
    }
    return arrays, Document(about, "json")


def archive(arrays: Arrays, compressed: bool = True) -> bytes:
    held = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(held, allow_pickle=True, **arrays)
    return held.getvalue()


def odd_arrays(chance: random.Random, arrays: Arrays) -> dict[str, Any]:
    """Give arrays of which one is not as it should be: a value, a type, a length, a shape, or not there."""
    made: dict[str, Any] = {name: array.copy() for name, array in arrays.items()}
    name = chance.choice(sorted(made))
    array = made[name]
    match chance.randrange(8):
        case 0 | 1 | 2:
            made[name] = array = array.astype(chance.choice([np.int64, np.int64, np.uint64, np.int8]))
            place = chance.randrange(len(array))
            odd = [n for n in ODD_NUMBERS if isinstance(n, int) and abs(n) < 2**65]
            array[place] = _held(chance.choice(odd), array.dtype)
        case 3:
            made[name] = array.astype(chance.choice([np.float64, bool, "S3", "M8[s]", object, np.complex64]))
        case 4:
            made[name] = chance.choice([array[:-1], array[:0], array[::-1], np.concatenate([array, array])])
        case 5:
            made[name] = chance.choice([array.reshape(1, -1), np.int64(3), np.zeros((0, 3), np.uint8)])
        case 6:
            del made[name]
        case _:
            made["x\x1b" if chance.random() < 0.5 else "arr_0"] = made.pop(name)
    return made


def _held(value: int, kind: np.dtype) -> Any:
    """Cut a number to what an array of that type can hold."""
    return np.array([value % 2**64], np.uint64).astype(kind)[0]


def huge_header(array: np.ndarray) -> bytes:
    """Give the .npy file of an array whose header promises a million million values."""
    held = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        held, {"descr": array.dtype.str, "fortran_order": False, "shape": (10**12,)}
    )
    return held.getvalue() + array.tobytes()


@cache
def golden_result() -> Any:
    """What `luf golden --json` leaves when the emulator does what was recorded, but for one row."""
    from emulator.cli import main

    with tempfile.TemporaryDirectory() as folder:
        write(
            Path(folder, "rec"),
            **{key: recordings()[0].tree[key] for key in ("micro", "pressure", "environments")},
        )
        line = ["golden", "--data", f"{folder}/rec", "--json", f"{folder}/g.json"]
        with redirect_stdout(io.StringIO()):
            main(line, emulate=mirrored(f"{folder}/rec"))
        return json.loads(Path(folder, "g.json").read_text(encoding="utf-8"))


def mirrored(folder: str) -> Emulation:
    """An emulator that did what is recorded in the folder, or nearly."""

    def fake() -> Fake:
        made = mirror(read_recording(folder))
        for did in list(made.cells.values())[:1]:
            did.counters["tlb_ipi"] = [count + 1 for count in did.counters.get("tlb_ipi", [0])]
        return made

    return Emulation(
        lambda: fake().emulation().scenario_names(),
        lambda *cells, **how: fake().emulate_micro(*cells, **how),
        lambda raw: list(fake().runs),
        lambda *run, **how: fake().emulate_pressure(*run, **how),
        ROWS,
    )
