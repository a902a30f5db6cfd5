"""What a run found wrong, as tables of fixed shape that go to JSON and back: violations with their events,
and findings of LUF's debug feature.

emulator/judge/ fills them in, emulator/report/ tells them. Keys that are not required may be missing in
results of an older luf, or do not belong to every finding.
"""

from __future__ import annotations

from typing import Annotated, NotRequired, TypedDict

from msgspec import Meta

from inputs.checked import Natural

# where the kernel is about to use a frame (allocator/kmap.py)
Site = Annotated[str, Meta(pattern=r"\A(KMAP|MKWRITE|FREE)_[A-Z]+\Z")]
Record = Annotated[str, Meta(pattern=r"\A(page|mm|file)\Z")]  # whose record a finding is about
Whole = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
OrNone = Annotated[int, Meta(ge=-1, le=2**63 - 1)]  # a number of something; -1: none


class Event(TypedDict, total=False):
    """One line of a proof; what was left out has no time and no actor."""

    place: OrNone  # in the order in which all events happened
    t_ns: Natural  # by the clock of its CPU
    kind: str
    frame: OrNone
    actor: str
    what: str


class Taken(TypedDict):
    """The call that took the translation away, or the right to write."""

    call: str  # its name, which does not change from run to run: `munmap`, `demotion in reclaim by kswapd`
    what: str  # with its arguments, and the row of its thread
    actor: str
    begin: Natural  # numbers of events
    end: NotRequired[Natural]  # if it had returned by then


EXPOSED = "exposed"  # kind of a violation that is no access, but a state


class Violation(TypedDict, total=False):
    """One access that the oracle judged wrong, or a state in which a CPU could have made one."""

    kind: str
    claim: str
    cpu: Natural  # that made the access, or could have
    t_ns: Natural
    access: str
    address: Natural | str
    page: OrNone
    mm: OrNone
    task: OrNone
    frame: OrNone
    filled_ns: OrNone
    expected: str
    found: str
    why: str  # an exposure: why the CPU would use the entry as it is
    should: str
    however: str
    again: str
    design: str
    seed: Natural
    taken: Taken
    events: list[Event]


class DebugCounts(TypedDict, total=False):
    """How often LUF's debug feature did what; of a run without it, nothing."""

    records: Natural
    checks: Natural
    findings: Natural


class DebugFinding(TypedDict):
    """A frame that LUF's debug feature saw used before a CPU had flushed it."""

    site: Site
    function: str
    cpu: Natural
    task: str
    t_ns: Natural
    frame: OrNone
    record: Record
    request: Natural
    lagging: list[Natural]
    done: list[Natural]
    mm: NotRequired[OrNone]
    address: NotRequired[Natural]
    page: NotRequired[str]
    key: NotRequired[OrNone]
    held: NotRequired[str]
    freed_by: NotRequired[OrNone]
    freed_ns: NotRequired[Natural]
    record_of: NotRequired[str]
