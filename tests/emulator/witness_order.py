"""Do the lines of a witness contradict each other? Its own small model of a frame's life, sharing nothing
with the code that makes witnesses.

A frame belongs to somebody, or is free. Who takes it must find it free; who maps, fills, moves, unmaps or
frees it must find it owned. The access comes last, finds what the lines before it say that the frame holds,
and an unmap that it is blamed for is before it. The call that is said to have taken the translation away
begins before it does so and ends after it, in one thread. Places rise, and so do the times of each CPU, whose
clock never goes back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any

HANDED_OUT = "handed out again"
OWNED, FREE, UNKNOWN = "owned", "free", "unknown"
NEEDS = {"map": OWNED, "unmap": OWNED, "fill": OWNED, "migrate": OWNED, "free": OWNED, "take": FREE}
NEEDS |= {"move": OWNED}
LEAVES = {"free": FREE, "take": OWNED, "map": OWNED, "unmap": OWNED, "fill": OWNED, "migrate": OWNED}
LEAVES |= {"move": OWNED}
TAKES = ("unmap", "move", "change")
ACCESSES = ("load", "store", "fetch")
JUDGED = (*ACCESSES, "exposed")  # what a witness ends with


def contradictions(violation: Mapping[str, Any]) -> list[str]:
    """Give a sentence for each contradiction."""
    lines = list(violation["events"])
    if not lines or lines[-1]["kind"] not in JUDGED:
        return ["what was judged is not the last line"]
    found = [*_order(lines), *_life(lines, violation["frame"])]
    found += [
        f"{line['what']}: what was judged is before it" for line in lines[:-1] if line["kind"] in JUDGED
    ]
    if lines[-1]["kind"] in ACCESSES:  # of a state, nobody has found anything in the frame
        found += _content(lines[:-1], violation)
    return [*found, *_flushes(lines, violation), *_call(lines, violation)]


def _order(lines: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    place, clocks = -1, {}
    for line in lines:
        if line["kind"] == "gap":
            continue
        if line["place"] < place + (line["kind"] != "trace"):  # a trace stands behind its event
            yield f"{line['what']}: at place {line['place']}, behind {place}"
        cpu = line["actor"].split()[0]
        if line["t_ns"] < clocks.get(cpu, 0):
            yield f"{line['what']}: {cpu}'s clock goes back"
        place, clocks[cpu] = line["place"], line["t_ns"]


def _life(lines: Iterable[Mapping[str, Any]], frame: int) -> Iterable[str]:
    state = UNKNOWN
    for line in lines:
        if line["kind"] == "gap":
            state = UNKNOWN
        if line.get("frame") != frame or line["kind"] not in NEEDS:
            continue
        if state not in (UNKNOWN, NEEDS[line["kind"]]):
            yield f"{line['what']}: the frame is {state}"
        state = LEAVES[line["kind"]]


def _page(text: str) -> str:
    return re.sub(r", version \d+$", "", text)


def _content(lines: list[Mapping[str, Any]], violation: Mapping[str, Any]) -> list[str]:
    """What the access found is what the last line that changes the frame's contents has left there."""
    holds: str | None = _page(violation["expected"])
    for line in lines:
        mine = line.get("frame") == violation["frame"]
        if line["kind"] == "gap" or (mine and line["kind"] == "migrate"):
            holds = None  # not said
        elif mine and (line["kind"] == "take" or line["what"].endswith("and clear it")):
            holds = HANDED_OUT
        elif mine and line["kind"] == "fill":
            holds = _page(line["what"].partition(" with ")[2])
    found = _page(violation["found"])
    found = HANDED_OUT if found.endswith(HANDED_OUT) else found
    return [] if holds in (None, found) else [f"it found {found}, and the frame held {holds}"]


def _flushes(lines: list[Mapping[str, Any]], violation: Mapping[str, Any]) -> list[str]:
    """Flushes of the page are listed from the unmap on, and only if `however` says that there were some."""
    kinds = [line["kind"] for line in lines]
    found = []
    if "flush" in kinds and "did not flush" in violation["however"]:
        found.append("a flush is listed that is then denied")
    if "unmap" in kinds and "flush" in kinds[: kinds.index("unmap")]:
        found.append("a flush is listed before the unmap")
    return found


def _thread(line: Mapping[str, Any]) -> str:
    """Whoever it is that acts, on whatever CPU; a CPU without a thread is one of its own."""
    cpu, _, thread = line["actor"].partition(" ")
    return thread or cpu


def _call(lines: list[Mapping[str, Any]], violation: Mapping[str, Any]) -> Iterable[str]:
    """One call at most is told, and it is the one that is named: it begins before the translation is taken
    away, and ends after it.
    """
    begins, ends = ([line for line in lines if line["kind"] == kind] for kind in ("call", "return"))
    taken = violation.get("taken")
    if taken is None:
        if begins or ends:
            yield "a call is told, and none is named"
        return
    if [line["place"] for line in begins] != [taken["begin"]]:
        yield f"the call begins at {[line['place'] for line in begins]}, and not at {taken['begin']}"
    if [line["place"] for line in ends] != [taken[name] for name in ("end",) if name in taken]:
        yield f"the call ends at {[line['place'] for line in ends]}, and not at {taken.get('end')}"
    taking = next((line for line in lines if line["kind"] in TAKES), None)
    if taking is None:
        yield "a call is named, and took nothing away"
        return
    if taking["place"] <= taken["begin"]:
        yield f"{taking['what']}: the call begins after it"
    if taking["place"] >= taken.get("end", taking["place"] + 1):
        yield f"{taking['what']}: the call ends before it"
    for line in (*begins, *ends):
        if _thread(line) != _thread(taking):
            yield f"{line['what']}: by {_thread(line)}, and the translation was taken by {_thread(taking)}"


def checked(make: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Let a function that makes witnesses fail over one that contradicts itself."""

    @wraps(make)
    def made(*arguments: Any) -> dict[str, Any]:
        violation = make(*arguments)
        wrong = contradictions(violation)
        assert not wrong, f"a witness contradicts itself: {'; '.join(wrong)}\n{violation}"
        return violation

    return made
