"""A schedule: who runs next in a run with scheduling points, as plain data that repeats the run.

    Schedule()                                      a random walk, a decision every 300 points on average
    Schedule("pct", depth=3, points=100_000)        priorities that change at three of so many points
    Schedule("listed", switches=result.switches)    what another run did, or a part of that

What the strategies are is said in cpus/strategies.py. All that is drawn comes from named streams of one seed,
which is the schedule's own: another schedule leaves the workload as it is. Left out: which schedule to try
next.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from allocator.cut_short import LOOKS
from cpus.abi.numbers import CPUS_MAX
from cpus.points import ready_points
from cpus.strategies import (
    BACK,
    CHANGES_MAX,
    DUE,
    HOOKS,
    LISTED,
    NEVER,
    PCT,
    PLACES,
    SALT,
    STARVE,
    SURW,
    WALK,
)
from emulator.order import LONG_SLICE_NS
from inputs.text import clipped, whole_number

STRATEGIES = {
    "walk": WALK,
    "pct": PCT,
    "surw": SURW,
    "starve": STARVE,
    "hooks": HOOKS,
    "places": PLACES,
    "listed": LISTED,
}
HOLDS_UP = (1, 4, 32, 256)  # of so many visits of a place in the source: some are executed all the time
OF_A_STRATEGY = {  # the parameters that a strategy goes by
    "walk": ("distance",),
    "pct": ("depth", "points"),
    "surw": ("distance", "expected"),
    "starve": ("cpu", "distance"),
    "hooks": ("distance",),
    "places": ("distance", "places"),
    "listed": (),
}
OF_ALL = ("seed", "window_ns", "tick_ns", "rules")
IF_GIVEN = ("slice_ns", "points_max", "disturbs", "wraps", "records")
DEPTH_MAX = 5
SWITCHES_KEPT = 1 << 18
SWITCHES_MAX = 1 << 20
TOUCHED_KEPT = 1 << 18
WINDOW_NS = 20_000_000
TICK_NS = 500_000  # an eighth of Linux's: a short run is to see some
NOBODY = -1
NUMBERS = {
    "distance": (0, 10**9),
    "depth": (1, DEPTH_MAX),
    "points": (1, 10**12),
    "cpu": (0, CPUS_MAX - 1),
    "places": (1, 10**6),
    "seed": (0, 2**63 - 1),
    "window_ns": (1, 10**12),
    "tick_ns": (1, 10**12),
    "rules": (0, 1),
    "slice_ns": (0, 10**12),
    "points_max": (0, 10**12),
    "disturbs": (0, 1000),
    "wraps": (0, 1),
    "records": (0, 1),
}
EXPECTED_BY = "/"  # stands between the numbers of CPUs, on a command line

Switch = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Schedule:
    """Who runs next.

    `distance`: mean number of points between two decisions, 0: none but where a CPU waits (walk, surw,
    starve, places; hooks: inside a hook). `depth`: changes of priorities, among `points` that are
    expected in all (pct). `expected`: points of each CPU in an earlier run (surw; `cpu_points` of its
    result). `cpu`: the one that runs only if no other can (starve). `places`: one of so many places in
    the source holds CPUs up (places). `switches`: (CPU, points that it has passed, CPU that runs then),
    as in the `switches` of a result (listed). `window_ns`: how far virtual clocks may lie apart.
    `tick_ns`: mean time between two ticks of a CPU, which is drawn. `rules` 1: at decisions, the access
    that is about to be made is held against the rule of its field, and the order of locks is looked at.
    `slice_ns`: the longest time that a CPU runs before it hands over by itself, 0: as without a schedule.
    `points_max`: a run that has passed so many is cut short. `disturbs`: one of so many ticks has its CPU
    do what kernel workers do (allocator/cpu.py). `wraps`: numbers begin shortly before they wrap
    (near_wrap.py). `records` 1: what each point touches is noted (listed). Raises ValueError.
    """

    strategy: str = "walk"
    distance: int = 300
    depth: int = 3
    points: int = 100_000
    expected: tuple[int, ...] = ()
    cpu: int = 0
    places: int = 100
    switches: tuple[Switch, ...] = ()
    seed: int = 1
    window_ns: int = WINDOW_NS
    tick_ns: int = TICK_NS
    rules: int = 0
    slice_ns: int = 0
    points_max: int = 0
    disturbs: int = 0
    wraps: int = 0
    records: int = 0

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise ValueError(
                f"'schedule' must be one of {', '.join(STRATEGIES)} (got {clipped(self.strategy)})"
            )
        for name, (least, most) in NUMBERS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                rule = f"must be a whole number from {least:,} to {most:,}"
                raise ValueError(f"'schedule.{name}' {rule} (got {clipped(value)})")
        object.__setattr__(self, "expected", tuple(self.expected))
        object.__setattr__(self, "switches", tuple(tuple(one) for one in self.switches))
        if not all(isinstance(count, int) and count >= 0 for count in self.expected):
            raise ValueError("'schedule.expected' must be whole numbers of at least 0, one for each CPU")
        if self.records and self.strategy != "listed":
            raise ValueError(f"'schedule.records' must be 0 but for a list (got {self.strategy})")
        for one in self.switches:
            if len(one) != 3 or not all(isinstance(n, int) and 0 <= n < 1 << 62 for n in one):
                raise ValueError(
                    "'schedule.switches' must be triples of whole numbers: a CPU, points that it has passed, "
                    f"the CPU that runs then (got {clipped(one)})"
                )
        if len(self.switches) > SWITCHES_MAX:
            raise ValueError(
                f"'schedule.switches' must be at most {SWITCHES_MAX:,} (got {len(self.switches):,})"
            )

    @property
    def longest_slice_ns(self) -> int:
        """Give how long a CPU runs before it looks for ticks: short, if these are to disturb short runs."""
        return self.slice_ns or (min(self.tick_ns, LONG_SLICE_NS) if self.disturbs else LONG_SLICE_NS)

    def about(self) -> dict[str, str | int]:
        """Give what it goes by, but for a list of hand-overs."""
        names = [name for name in (*OF_A_STRATEGY[self.strategy], *OF_ALL, *IF_GIVEN)
                 if name not in (*IF_GIVEN, "expected") or getattr(self, name)]  # fmt: skip
        found = {name: getattr(self, name) for name in ("strategy", *names)}
        if "expected" in found:
            found["expected"] = EXPECTED_BY.join(map(str, self.expected))
        return found

    def __str__(self) -> str:
        given = [f"{name}={value}" for name, value in self.about().items() if name != "strategy"]
        return ":".join([self.strategy, ",".join(given)])

    def random(self, stream: str) -> np.random.Generator:
        """Give the named stream of this schedule's seed."""
        return np.random.default_rng(np.random.SeedSequence([self.seed, *stream.encode()]))


def parse_schedule(text: str) -> Schedule:
    """Read what the command line takes, `walk:distance=300,seed=7`, `surw:expected=900/20`. Raises
    ValueError.
    """
    strategy, _, rest = text.partition(":")
    given: dict[str, Any] = {}
    known = [field.name for field in fields(Schedule) if field.name in (*NUMBERS, "expected")]
    for item in filter(None, rest.split(",")):
        name, equals, value = item.partition("=")
        if name not in known or not equals:
            raise ValueError(f"'schedule' must have parameters of {', '.join(known)} (got {clipped(item)})")
        numbers = [whole_number(one) for one in (value.split(EXPECTED_BY) if name == "expected" else [value])]
        if None in numbers:
            raise ValueError(f"'schedule.{name}' must be a whole number (got {clipped(value)})")
        if name in given:
            raise ValueError(f"'schedule.{name}' must be given once (got {clipped(text)})")
        given[name] = tuple(numbers) if name == "expected" else numbers[0]
    return Schedule(strategy, **given)


def sizes_of(schedule: Schedule | None) -> dict[str, int]:
    """Give the sizes of the tables that a run with this schedule needs (cpus/layout.py: Sizes)."""
    if schedule is None:
        return {}
    return {
        "nr_switches": SWITCHES_KEPT,
        "nr_listed": len(schedule.switches) + 1,
        "nr_touched": TOUCHED_KEPT if schedule.records else 1,
    }


def constants_of(schedule: Schedule | None) -> dict[str, int]:
    """Give the constants of the RAM that say which schedule it is."""
    if schedule is None:
        return {}
    return {
        "strategy": STRATEGIES[schedule.strategy],
        "distance": schedule.distance,
        "window_ns": schedule.window_ns,
        "tick_ns": schedule.tick_ns,
        "rules": schedule.rules,
        "points_max": schedule.points_max,
        "disturbs": schedule.disturbs,
        "records": schedule.records,
        "starved": schedule.cpu,
        "places": schedule.places,
        "holds_up": int(schedule.random("holds up").choice(HOLDS_UP)),
        "lock_spins": 0,  # who waits gives way at once
    }


def write_schedule(ram: Any, schedule: Schedule) -> None:
    """Write the tables that a schedule goes by, and set the countdown, before the CPUs start. The text table
    must have been filled.
    """
    listed = sorted(schedule.switches)
    ram.listed[: len(listed)] = np.array(listed, np.int64).reshape(-1, 3)
    ram.listed[len(listed)] = NOBODY
    ram.cpu_listed[:] = np.searchsorted(ram.listed[: len(listed), 0], np.arange(ram.nr_cpus))
    ram.cpu_priority[:] = schedule.random("priorities").permutation(ram.nr_cpus)
    changes = np.sort(schedule.random("changes").integers(1, schedule.points + 1, schedule.depth))
    ram.change_point[:] = NEVER
    ram.change_point[: schedule.depth] = changes
    expected = schedule.expected[: ram.nr_cpus]
    ram.cpu_expected[: len(expected)] = expected
    ram.run_strategy_random[0] = int(schedule.random(schedule.strategy).integers(1, 2**62))
    ram.run_points_bound[0] = max(schedule.points_max // LOOKS, 1)
    ready_points(ram, int(schedule.random("delays").integers(1, 2**62)))
    ram.point[DUE], ram.point[BACK], ram.run_held_up[0] = 0, NEVER, NOBODY
    ram.point[SALT] = int(schedule.random("places").integers(1, 2**62))


assert DEPTH_MAX < CHANGES_MAX
