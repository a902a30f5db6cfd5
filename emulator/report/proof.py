"""Write a violation as a proof: what was seen, which call took the translation away, the events that led to
it (let), what was due (then), what was not done (however).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from emulator.findings import EXPOSED
from emulator.report.console import BAD, QUIET

CLOCKS = (
    "Lines are in the order in which they happened (#). Times are by the clock of each CPU; clocks differ."
)
_CLAIMS = {
    "reuse": "{actor} {did} memory that now belongs to somebody else",
    "stale read": "{actor} read an older version than was published",
    "lost write": "{actor} wrote to memory that is no longer the page",
    "access after completion": "{actor} used a translation after the call that removed it had returned",
    "lost data": "{actor} does not find the page that must be there",
    "dropped store": "{actor} drops a page that was stored to since it was written to disk",
    "store to a shared page": "{actor} may store to a private page that another address must show, too",
}
_DID = {"load": "read", "fetch": "executed", "store": "overwrote"}
_VERB = {
    "load": "loaded",
    "fetch": "fetched from",
    "store": "stored to",
    "drop": "dropped",
    "device write": "ended a device's write to",
}


def violation_text(violation: Mapping[str, Any], events: Sequence[Mapping[str, Any]] = ()) -> str:
    """Return a violation as a proof: what was seen, the events that led to it (let), what was due (then),
    what was not (however).

    `violation`: kind, cpu, t_ns; if known access (load, store, fetch), address, expected, found, frame,
    filled_ns, design, seed, should, however, again. `events`: actor, what, t_ns (by the clock of its CPU), in
    the order in which they happened.
    """
    return violation_proof(violation, events).plain


def violation_proof(violation: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> Text:
    """Return what `violation_text` does, with its colours."""
    kind = str(violation.get("kind", "violation"))
    access = str(violation.get("access", "load"))
    actor = f"cpu{violation['cpu']}" if "cpu" in violation else "a CPU"
    claim = violation.get("claim") or _CLAIMS.get(kind, "{actor}: " + kind).format(
        actor=actor, did=_DID.get(access, "used")
    )
    about = [f"design {violation['design']}"] if "design" in violation else []
    about += [f"seed {violation['seed']}"] if "seed" in violation else []
    about += [f"t = {microseconds(violation['t_ns'])}"] if "t_ns" in violation else []
    text = Text("VIOLATION  ", BAD)
    head = f"{kind}: {claim}"
    text.append(f"{head:<88}  ".rstrip() if not about else f"{head:<88}  " + ", ".join(about), "bold").append(
        "\n"
    )
    text.append(f"  {_seen(violation, actor, access)}\n")
    if "taken" in violation:
        text.append(f"  {_taken(violation['taken'])}\n")
    for i, line in enumerate(_lines(events)):
        text.append("  Let    " if i == 0 else "         ").append(f"{line}\n")
    should = violation.get("should") or _should(violation, actor)
    if should:
        text.append(f"  Then   {should}\n")
    if violation.get("however"):
        text.append(f"  However {violation['however']}\n")
    if events:
        text.append(f"  {CLOCKS}\n", QUIET)
    if violation.get("again"):
        text.append(f"  again: {violation['again']}\n", QUIET)
    return text


def _seen(violation: Mapping[str, Any], actor: str, access: str) -> str:
    exposed = violation.get("kind") == EXPOSED
    words = [actor, "has" if exposed else _VERB.get(access, access)]
    if "address" in violation:
        words.append(address(violation["address"]))
    if "expected" in violation:
        words.append(f"({violation['expected']})")
    if "filled_ns" in violation:
        how = "in" if exposed else "through"
        words.append(f"{how} a TLB entry filled at {microseconds(violation['filled_ns'])}")
    text = " ".join(words)
    if exposed:
        return f"{text},\n  and would use it: {violation.get('why', '?')}"
    if "found" in violation:
        frame = f"frame {violation['frame']}" if "frame" in violation else "the frame"
        holds = "the disk has" if access == "drop" else f"{frame} now holds"
        text += f";\n  {holds} {violation['found']}"
    return text


def _taken(taken: Mapping[str, Any]) -> str:
    """Name the call that took the translation away, and when it began and had returned."""
    end = (
        f"#{taken['begin']:,} to #{taken['end']:,}"
        if "end" in taken
        else f"under way since #{taken['begin']:,}"
    )
    return f"taken away by {taken['actor']}, {end}: {taken['what']}"


def _lines(events: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lay events out in columns: place in the order of all, clock, CPU and thread, what happened."""
    known = [event for event in events if "t_ns" in event]  # the others stand for what was left out
    numbers = [f"#{event['place']:,}" if "place" in event else "" for event in known]
    times = [microseconds(event["t_ns"]) for event in known]
    actors = [str(event.get("actor", "?")) for event in known]
    a, b, c = (max(map(len, column), default=0) for column in (numbers, times, actors))
    rows = iter(zip(numbers, times, actors, strict=True))
    lines = []
    for event in events:
        number, time, actor = next(rows) if "t_ns" in event else ("", "", "")
        lines.append(f"{number:>{a}}  {time:>{b}}  {actor:<{c}}  {event.get('what', '')}".rstrip())
    return lines


_BEFORE = {
    "reuse": "frame {frame} was used again",
    "stale read": "a newer version was published",
    "lost write": "a newer version was published",
    "access after completion": "the call that changed the mapping returned",
}


def _should(violation: Mapping[str, Any], actor: str) -> str:
    before = _BEFORE.get(str(violation.get("kind")), "").format(frame=violation.get("frame", "?"))
    return f"{actor} should have been flushed before {before}." if before else ""


def microseconds(t_ns: int) -> str:
    """Return a point of virtual time: `1,204.7 us`."""
    return f"{int(t_ns) / 1000:,.1f} us"


def address(value: int | str) -> str:
    """Return an address in groups of four digits: 0x7f3a_0004_2000."""
    return value if isinstance(value, str) else f"0x{value:_x}"
