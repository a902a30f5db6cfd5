"""Every reader of luf, as command lines that reach it with an odd input, and what must hold of what it
accepts.

A reader is a line of the table at the end, or of that in short_runs.py: a name, a function that makes an
input of a stream of chance, and a check. `check(room, one)` says what contradicts itself once the command has
accepted the input.
"""

from __future__ import annotations

import random
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from emulator.repeats.result import read_result
from emulator.result import from_json, to_json
from tests.campaigns.fuzzing import sound_files
from tests.campaigns.fuzzing.documents import ODD_TEXTS, Document, mutated, mutated_bytes, odd_value
from tests.campaigns.fuzzing.inputs import Input

if TYPE_CHECKING:
    from tests.campaigns.fuzzing.worker import Room

Chance = random.Random
Check = Callable[["Room", Input], Iterator[str]]
RUN = ("run", "linux", "--leases", "2", "--tokens", "1", "--out", "o")
SMALL_MACHINE = ("--machine", "guest-8cpu", "--cpus", "2", "--scale", "4")
PLAIN_SCRIPT = b'region = [{name = "h", pages = 4}]\nprocess = [{name = "p", threads = [[["load", "h"]]]}]\n'


# fields of a result with values as somebody gave them, numbers of events and frames that may be -1 for none,
# and what the audit found, which may be less than nothing
ANY_NUMBER = (
    "overrides", "design_stats", "design_parameters", "workload_parameters", "schedule",
    "violations", "window_proofs", "debug_findings", "accounted",
)  # fmt: skip


def nothing_more(room: Room, one: Input) -> Iterator[str]:
    yield from ()


@dataclass(frozen=True, slots=True)
class Reader:
    """`make(chance)` gives an input; `share` is how often it is its turn."""

    name: str
    make: Callable[[Chance], Input]
    check: Check = nothing_more
    share: int = 1
    names_its_file: bool = True


def odd(chance: Chance, document: Document, others: tuple[Document, ...]) -> Document | bytes:
    """Make a document odd by its structure, or by its bytes (one time in four)."""
    if chance.random() < 0.75:
        return mutated(chance, document)
    return mutated_bytes(chance, document.encoded(), [other.encoded() for other in others])


# -- machines ------------------------------------------------------------------------------------------------


def machine(chance: Chance) -> Input:
    """A machine file; or one that another is `like`; or a sound one with --set."""
    known = sound_files.machines()
    line = [*RUN, "--machine", "m.toml", "--workload", "w.toml"]
    files: dict[str, Any] = {"w.toml": PLAIN_SCRIPT}
    changed = odd(chance, chance.choice(known), known)
    match chance.randrange(4):
        case 0:
            files |= {"m.toml": b'like = "base.toml"\nname = "mine"\n', "base.toml": changed}
            return Input("machine", tuple(line), files, "base.toml")
        case 1:
            files["m.toml"] = chance.choice(known)
            key = _key_of(chance, files["m.toml"])
            value = chance.choice(
                [str(odd_value(chance)), chance.choice(ODD_TEXTS), "[" * 3_000, "1\nlike='x'"]
            )
            line += ["--set", f"{key}={value}".replace("\x00", "")]
            return Input("machine", tuple(line), files)
        case _:
            files["m.toml"] = changed
            line += ["--cpus", "2"] * (chance.random() < 0.3)
            return Input("machine", tuple(line), files, "m.toml")


def _key_of(chance: Chance, document: Document) -> str:
    tree, parts = document.tree, []
    while isinstance(tree, dict | list) and tree and (not parts or chance.random() < 0.8):
        part = chance.choice([*tree] if isinstance(tree, dict) else [*range(len(tree))])
        parts.append(str(part))
        tree = tree[part]
    return (
        ".".join(parts)
        if chance.random() < 0.8
        else chance.choice(["nodes.9.x", "", "a..b", "x\x7f", "costs."])
    )


def machine_is_one(room: Room, one: Input) -> Iterator[str]:
    """The machine that the run's folder keeps is the one that ran; its sizes are sizes; a small one runs."""
    (first,) = room.seen.machines[-1:] or (None,)
    if first is None:
        return
    if min([*first.pages, *(zone.usable_pages for zone in first.zones)]) < 1:
        yield f"a zone without pages: {first.pages}"
    again = room.luf([*RUN, "--machine", "o/latest/config.toml", "--workload", "w.toml"])
    if again.code:
        yield f"config.toml of the run's own folder is refused: {again.err.strip()}"
    elif room.seen.machines[-1] != first:
        yield "config.toml of the run's own folder is another machine"
    yield from _runs(room, one)


# -- workloads -----------------------------------------------------------------------------------------------


def script(chance: Chance) -> Input:
    """A script in TOML."""
    known = sound_files.scripts()
    files = {"w.toml": odd(chance, chance.choice(known), known)}
    return Input("script", (*RUN, *SMALL_MACHINE, "--workload", "w.toml"), files, "w.toml")


def trace(chance: Chance) -> Input:
    """A recorded trace: its .json, its arrays, or the bytes of its archive."""
    arrays, about = sound_files.trace()
    files: dict[str, Any] = {"t.npz": sound_files.archive(arrays), "t.json": about}
    touched = "t.npz"
    match chance.randrange(5):
        case 0 | 1:
            touched = "t.json"
            files[touched] = odd(chance, about, (about,))
        case 2 | 3:
            files[touched] = sound_files.archive(sound_files.odd_arrays(chance, arrays))
        case _:
            plain = sound_files.archive(arrays, compressed=chance.random() < 0.5)
            files[touched] = mutated_bytes(chance, plain, [plain])
    return Input("trace", (*RUN, *SMALL_MACHINE, "--workload", "t.npz"), files, touched)


def workload_is_one(room: Room, one: Input) -> Iterator[str]:
    """What was accepted has processes and pages, and runs."""
    for workload in room.seen.workloads[-1:]:
        if not workload.processes or workload.working_set_pages() < 0:
            yield "a workload without processes"
    yield from _runs(room, one)


def trace_is_one(room: Room, one: Input) -> Iterator[str]:
    """A second, slow look at the arrays: what a row names is there, and no value is cut."""
    with np.load(room.folder / "t.npz", allow_pickle=False) as held:
        arrays = {name: held[name].astype(object) for name in held.files}
    about = msgspec.json.decode((room.folder / "t.json").read_bytes())
    pages = [region["pages"] for region in about["regions"]]
    rows = len(arrays["thread"])
    bounds = {"region": len(pages), "kind": 3, "count": 2**32, "thread": 256, "eval_start": rows,
              "mark_pos": rows + 1, "mark_thread": int(arrays["thread"].max()) + 1}  # fmt: skip
    for name, bound in bounds.items():
        for value in arrays[name]:
            if not 0 <= value < bound:
                yield f"accepts {name!r} of {value}"
                break
    for region, page in zip(arrays["region"], arrays["page"]):
        if 0 <= region < len(pages) and not 0 <= page < pages[region]:
            yield f"accepts page {page} of a region of {pages[region]}"
            break
    yield from workload_is_one(room, one)


def _runs(room: Room, one: Input) -> Iterator[str]:
    """Run a small one in earnest, now and then: clean, or refused in a sentence; no time below zero."""
    if not room.in_earnest or not room.seen.workloads:
        return
    machine, rows = room.seen.machines[-1], room.seen.workloads[-1].stored_rows()
    if machine.cpus > 4 or sum(machine.pages) > 60_000 or rows > 5_000:
        return
    done = room.luf(one.arguments, in_earnest=True)
    own = done.code == 1 and re.match(r"luf: \S+\.py:\d+: ", done.err)  # a design's own code is wrong
    if done.code not in (0, 2) and not own:
        yield f"exit code {done.code} when it runs: {done.err.strip() or done.out.strip()[-400:]}"
    elif done.code == 0:
        written = from_json((room.folder / "o" / "latest" / "result.json").read_bytes())
        if min([0, *(ns for run in written.runs for ns in run.runtime_ns)]) < 0:
            yield f"a runtime below zero: {[run.runtime_ns for run in written.runs]}"


# -- results and recordings ----------------------------------------------------------------------------------


def result(chance: Chance) -> Input:
    """A result, as `luf report` reads it."""
    known = sound_files.results()
    files = {"r.json": odd(chance, chance.choice(known), known)}
    more = ("--timeline",) * (chance.random() < 0.3)
    return Input("result", ("report", "r.json", *more), files, "r.json")


def picture(chance: Chance) -> Input:
    """The same, drawn: slow."""
    made = result(chance)
    return Input("picture", ("report", "r.json", "--picture", "p.png"), made.files, "r.json")


def _no_number(room: Room) -> Iterator[str]:
    """Find what is printed as a number and is none; a scenario may be called so."""
    named = {
        word.lower()
        for file in room.folder.rglob("*.json")
        for word in re.findall(r'(?i)"(nan|-?inf)"', file.read_text(encoding="utf-8", errors="replace"))
    }
    if found := re.search(r"(?i)(?<![\w-])(nan|-?inf)(?![\w-])", room.said.out):
        if found[0].lower() not in named:
            yield f"prints {found[0]}"


def result_is_one(room: Room, one: Input) -> Iterator[str]:
    """Shares are shares, counts are counts, the parts are as many as their sum, and writing it changes
    nothing.
    """
    for share in re.findall(
        r"([-\d.,]+) %", "".join(re.findall(r"^unmapped read-only.*$", room.said.out, re.M))
    ):
        if not 0 <= float(share.replace(",", "")) <= 100:
            yield f"a share of {share} %"
    yield from _no_number(room)
    held = read_result("r.json")
    (room.folder / "again.json").write_text(to_json(held), encoding="utf-8")
    if to_json(read_result("again.json")) != to_json(held):
        yield "written and read again it is another result"
    for run in held.runs:
        plain = msgspec.to_builtins(run)
        for name in plain.keys() - ANY_NUMBER:
            if any(number < 0 for number in _numbers(plain[name])):
                yield f"accepts {name!r} below zero"
        if sum(run.tlb_shootdowns_per_cpu) != run.tlb_shootdowns:
            yield "accepts 'tlb_shootdowns' that is not the sum of its CPUs"
        if {len(per_cpu) for per_cpu in run.counters.values()} - {run.cpus}:
            yield "accepts 'counters' of more or fewer CPUs than there are"
        if {len(free) for free in run.series.free_mib} - {len(run.series.t_ns)}:
            yield "accepts 'series' of two lengths"


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _numbers(inner)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def recording(chance: Chance) -> Input:
    """golden.json: what a real kernel did."""
    known = sound_files.recordings()
    files = {"rec/golden.json": odd(chance, chance.choice(known), known)}
    return Input(
        "recording", ("golden", "--data", "rec", "--all", "--json", "g.json"), files, "rec/golden.json"
    )


def again(chance: Chance) -> Input:
    """What `luf golden --json` left."""
    known = (Document(sound_files.golden_result(), "json"),)
    files = {"a.json": odd(chance, known[0], known)}
    return Input("again", ("golden", "--again", "a.json", "--all", "--json", "g.json"), files, "a.json")


def golden_is_one(room: Room, one: Input) -> Iterator[str]:
    """What it writes is read again, and says the same."""
    if not (room.folder / "g.json").exists():
        return
    yield from _no_number(room)
    for share in re.findall(
        r"([-\d.,]+) %\)?", "".join(re.findall(r"^(?:micro|pressure) .*$", room.said.out, re.M))
    ):
        if not 0 <= float(share.replace(",", "")) <= 100:
            yield f"a share of {share} %"
    first = (room.folder / "g.json").read_bytes()
    done = room.luf(["golden", "--again", "g.json", "--json", "h.json"])
    if done.code == 2:
        yield f"its own --json is refused: {done.err.strip()}"
    elif (room.folder / "h.json").read_bytes() != first:
        yield "written and read again it is another comparison"


# -- command lines, parameters, users' Python ----------------------------------------------------------------

LINES = """\
compare linux luf none --cpus 2 --tokens 2 --workload w.toml
run luf --leases 2 --seed 7 --scale 4096 --cpus 2 --workload churn
run luf_v12 --debug-luf --check bounds --strict-ipi --cpus 2 --workload w.toml
run luf:sync=help --set sysctl.numa_balancing=0 --set costs.ipi_latency=900 --memory 60% --workload t3
compare --machine qemu-16 --workload read-only:50%,order=2 --json - --cpus 4
run latr:ring=256 --machine two-socket --workload munmap-storm:threads=2,pages=8 --json j.json
compare linux luf --cpus 2 --tokens 2 --workload w.toml --seeds 2
report s.json --picture p.svg
golden --micro --only a_* --jobs 2 --seed 3 --repeat 2 --data rec
golden --again g.json --all --plot p.svg --doc d.md
report r.json --timeline
report r.json --picture p.svg
list designs
list"""


def words(chance: Chance) -> Input:
    """Command lines: words left out, doubled, from another line, odd."""
    files = {
        "w.toml": PLAIN_SCRIPT,
        "r.json": sound_files.results()[0],
        "s.json": sound_files.results()[-1],
        "rec/golden.json": sound_files.recordings()[0],
    }
    return Input("words", odd_line(chance, LINES), files)


def odd_line(chance: Chance, known: str) -> tuple[str, ...]:
    """Make one of these command lines odd."""
    lines = [shlex.split(line) for line in known.splitlines()]
    line = list(chance.choice(lines))
    for _ in range(chance.choice([1, 1, 2, 3])):
        place = chance.randrange(len(line)) if line else 0
        odd = chance.choice([
            chance.choice(ODD_TEXTS), chance.choice(chance.choice(lines)), str(odd_value(chance)), "--", "-",
            "--out", "a\udcffb", "--set=a=" + "[" * 3_000, "o" * 300, "--json=/dev/full", "é.json", "run",
            "--machine=x\x1b.toml",
        ])  # fmt: skip
        match chance.randrange(4):
            case 0:
                line[place : place + 1] = []
            case 1:
                line[place:place] = [odd]
            case 2:
                line[place : place + 1] = [odd]
            case _ if line:
                name, equals, _ = line[place].partition("=")
                line[place] = f"{name}={odd}" if equals else f"{line[place]}{odd}"
    return tuple(word.replace("\x00", "").replace("../", "") for word in line)


def parameters(chance: Chance) -> Input:
    """Parameters of designs and workloads: NAME:key=value."""
    from workloads.catalogue import names

    odd = chance.choice(
        [str(odd_value(chance)), chance.choice(ODD_TEXTS), "3,3", "=", "²", "1" * 5_000]
    ).replace("\x00", "")
    key = chance.choice(
        ["threads", "pages", "file", "scale", "order", "lookups", "parents", "sync", "ring", "what", odd]
    )
    given = (
        f":{key}={odd}" if chance.random() < 0.7 else f":{odd}{',' if chance.random() < 0.3 else ''}{key}=2"
    )
    line = list(RUN)
    if chance.random() < 0.3:
        line[1] = chance.choice(["luf", "latr", "none", "linux", "d.py:Mine"]) + given
    else:
        line += ["--workload", chance.choice([*names()]) + given]
    return Input("parameters", (*line, *SMALL_MACHINE), {"d.py": sound_files.DESIGN.encode()})


def python(chance: Chance) -> Input:
    """A user's design, or workload, with an expression in it that should not be there, or cut short."""
    design = chance.random() < 0.5
    name, source = ("d.py", sound_files.DESIGN) if design else ("w.py", sound_files.WORKLOAD)
    if chance.random() < 0.15:
        source = source[: chance.randrange(len(source))]
    else:
        expressions = [
            found.span(1)
            for found in re.finditer(r"(?:= |return |yield |\(|, )([\w\"'\[{(][^,\n()]*)", source)
        ]
        first, end = chance.choice(expressions)
        source = source[:first] + chance.choice(sound_files.ODD_PYTHON) + source[end:]
    line = list(RUN)
    if design:
        line[1] = "d.py:" + chance.choice(["Mine"] * 9 + ["Other"])
        line += ["--workload", "w.toml"]
    else:
        line += ["--workload", "w.py:" + chance.choice(["made"] * 9 + ["main", "other"])]
    return Input("python", (*line, *SMALL_MACHINE), {name: source.encode(), "w.toml": PLAIN_SCRIPT}, name)


FILES_AND_LINES = (
    Reader("machine", machine, machine_is_one, share=8),
    Reader("script", script, workload_is_one, share=8),
    Reader("trace", trace, trace_is_one, share=8),
    Reader("result", result, result_is_one, share=8),
    Reader("picture", picture),
    Reader("recording", recording, golden_is_one, share=6),
    Reader("again", again, golden_is_one, share=6),
    Reader("words", words, share=4, names_its_file=False),
    Reader("parameters", parameters, workload_is_one, share=4, names_its_file=False),
    Reader("python", python, workload_is_one, share=4),
)
