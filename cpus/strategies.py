"""Who runs next: the strategies of runs with scheduling points (points.py), under one lease.

A *decision* is made where a CPU hands its lease over by itself (it waits, its slice of virtual time is over),
and where the countdown of points has come to its end. lease.py says which CPUs may run (`cpu_eligible`); the
strategy chooses one of them, and how many points it will pass before the next decision:
- WALK: each with the same chance; distances are drawn, with a mean (0: no decision but those of CPUs);
- PCT: the one of the highest priority. Priorities are drawn, and at each of a few points that are drawn
  among an expected number of them whoever runs gets the lowest one so far (Burckhardt et al., ASPLOS 2010);
- SURW: with a chance by the points that each CPU has yet to pass, counted in an earlier run (Zhao et al.,
  ASPLOS 2025), at distances as WALK;
- STARVE: as WALK, but one CPU runs only if no other can;
- HOOKS: as WALK while the CPU is in a hook of the design; elsewhere one of ELSEWHERE decisions is made. So
  windows of two or three points are met in the design under test;
- PLACES: as WALK, but a few places in the source are drawn for the run, and a CPU that comes to one of them
  may be held up: it runs only if no other can, for a number of points that is drawn, and first of all then.
  A walk meets places as often as they are executed, so hardly ever those in rare code; here each has the
  same chance;
- LISTED: what a list says, which is how a run is repeated and shrunk.
Whoever spins gives way: it is not chosen while another may run, has the lowest priority from then on, and
does not keep a CPU that is starved or held up from running.

Where a strategy does not do the *usual*, the decision is logged: who decided, after how many points of its
own, and who runs. The usual is that the CPU goes on, at the end of a countdown, and elsewhere that the CPU
runs whose virtual time is least, the lowest number of several. So a list of all that was logged repeats a
run, and one with less still means something: numbers are those of one CPU, and what others do more or less
does not shift them. A decision counts as a point, so no two of a CPU have one number.
Left out: all schedules of a test, which emulator/litmus/exhaustive.py goes through by lists.
"""

import math

from cpus.compiled import kernel
from cpus.declare import CONFIG, Constant, Exclusive, Field, Held, Struct
from cpus.ram import LEFT

POINT_WORDS = 512  # a page of the host
SCHEDULE = Held("run_lease_lock", at="one")
CHANGES_MAX = 16
SWITCH_WORDS = 3  # CPU that decides, its points, CPU that runs then
LOG_WORDS = 5  # these, and the place in the segment and in the source, if it is at a point
# CPU, its points, place in the segment, operation, the CPUs that could run instead (a bit each). Where a CPU
# hands over by itself: place 0, and the CPU that runs then for the operation
TOUCHED_WORDS = 5
FIELDS = (
    Constant("strategy", "WALK, PCT ...: who runs next, in a controlled run with scheduling points"),
    Constant("distance", "mean number of points between two decisions, 0: none at points"),
    Constant("window_ns", "how far virtual clocks of CPUs that run may lie apart", "ns"),
    Constant("tick_ns", "mean time between two ticks of a CPU, in a run with scheduling points", "ns"),
    Constant("places", "PLACES: one of so many places in the source is drawn"),
    Constant("holds_up", "PLACES: it is held up at one of so many visits"),
    Constant("starved", "STARVE: the CPU that runs only if no other can"),
    Constant("records", "1: LISTED, and each point is noted in `touched`"),
    Constant("points_max", "points after which a run is ended (cut_short.py), 0: none"),
    Field("point", Exclusive("who executes; with several leases each CPU has a copy of its own"),
          "countdown of scheduling points, and what belongs to it (LEFT, AT_POINT ...)", (POINT_WORDS,),
          pages=True),
    Struct("one", "schedule", (
        Field("run_points", SCHEDULE, "points passed up to the last decision, and decisions"),
        Field("run_switches", SCHEDULE, "decisions that were logged, those included that had no room"),
        Field("run_strategy_random", SCHEDULE, "state of the strategy's random stream"),
        Field("run_changes", SCHEDULE, "PCT: changes of priorities so far; PLACES: CPUs held up"),
        Field("run_lowest", SCHEDULE, "PCT: the lowest priority so far, below 0"),
        Field("run_held_up", SCHEDULE, "PLACES: the CPU that is held up, or -1"),
        Field("run_touched", SCHEDULE, "points that were noted, those included that had no room"),
        Field("run_points_bound", SCHEDULE, "points at which is looked whether the run is too long"),
    )),
    Field("cpu_points", SCHEDULE, "points and decisions of the CPU", ("nr_cpus",)),
    Field("cpu_eligible", SCHEDULE, "1: it may run next", ("nr_cpus",)),
    Field("cpu_at_point", SCHEDULE, "1: it hands its lease over at a point, in the midst of anything",
          ("nr_cpus",)),
    Field("cpu_priority", SCHEDULE, "PCT: the largest first", ("nr_cpus",)),
    Field("cpu_expected", CONFIG, "SURW: points that it passes in all", ("nr_cpus",)),
    Field("change_point", CONFIG, "PCT: numbers of the points where priorities change", (CHANGES_MAX,)),
    Field("cpu_listed", SCHEDULE, "LISTED: its next entry", ("nr_cpus",)),
    Field("listed", CONFIG, "LISTED: hand-overs by CPU and number, behind them one of no CPU",
          ("nr_listed", SWITCH_WORDS)),
    Field("switch", SCHEDULE, "log of unusual decisions", ("nr_switches", LOG_WORDS)),
    Field("touched", SCHEDULE, "log of points", ("nr_touched", TOUCHED_WORDS)),
)  # fmt: skip

WALK, PCT, SURW, STARVE, LISTED, HOOKS, PLACES = range(1, 8)
ELSEWHERE = 40  # HOOKS: of so many decisions outside of hooks one is made
HOLDS_MAX = 400  # PLACES: in a run
IN_HOOKS = 8  # PLACES: so many times as many of the places inside the design's hooks
HELD_UP_BITS = (
    3,
    15,
)  # PLACES: points that others pass meanwhile, log2: at least, and how many lengths there are
# words of `point`, behind LEFT and AT_POINT: the countdown's last beginning, who wants no decision, whether
# it was shortened for one that spins, a random state (several leases), where the CPU that decides is: in the
# segment, in the source; PLACES: points of all after which there is a decision wherever a CPU is, and after
# which the one that is held up goes on, what places are drawn by, whether the CPU is held up here
ARMED, HELD, SPINS, DELAY_RANDOM, WHERE, SITE, DUE, BACK, SALT, HOLDS = range(2, 12)
NEVER = 1 << 60  # points
UNIT_BITS = 43  # of a number that is drawn
NOBODY = -1


@kernel
def random_next(state):
    """Advance a 63-bit xorshift stream; the state is the number drawn (never 0)."""
    state ^= (state << 13) & 0x7FFFFFFFFFFFFFFF
    state ^= state >> 7
    state ^= (state << 17) & 0x7FFFFFFFFFFFFFFF
    return state


@kernel
def _draw(ram):
    """Draw a number of UNIT_BITS bits from the strategy's stream."""
    ram.run_strategy_random[0] = random_next(ram.run_strategy_random[0])
    return ram.run_strategy_random[0] >> 20


@kernel
def distance_of(number, mean):
    """Make a distance of a number of UNIT_BITS bits: each point is the last one with the same chance."""
    return 1 + int(-math.log((number + 1) / (1 << UNIT_BITS)) * (mean - 1))


# --- the countdown ------------------------------------------------------------------------------------------


@kernel
def _next_listed(ram, cpu):
    """Skip a CPU's entries whose number it has passed; returns the next one's points from now, or NEVER."""
    i = ram.cpu_listed[cpu]
    while ram.listed[i, 0] == cpu and ram.listed[i, 1] <= ram.cpu_points[cpu]:
        i += 1
    ram.cpu_listed[cpu] = i
    return ram.listed[i, 1] - ram.cpu_points[cpu] if ram.listed[i, 0] == cpu else NEVER


@kernel
def arm(ram, cpu):
    """Set the countdown for a CPU that is about to run."""
    left = NEVER
    if ram.strategy == LISTED:
        left = _next_listed(ram, cpu)
    elif ram.strategy == PCT:
        if ram.run_changes[0] < CHANGES_MAX:
            left = max(ram.change_point[ram.run_changes[0]] - ram.run_points[0], 1)
    elif ram.strategy == PLACES:
        left = 1
        if ram.run_points[0] >= ram.point[DUE]:
            ram.point[DUE] = ram.run_points[0] + distance_of(_draw(ram), ram.distance)
    elif ram.distance > 0:
        left = distance_of(_draw(ram), ram.distance)
    if ram.points_max > 0:
        left = min(left, max(ram.run_points_bound[0] - ram.run_points[0], 1))
    if ram.records:
        left = 1
    ram.point[ARMED] = ram.point[LEFT] = left


@kernel
def _passed(ram):
    """Count the points of all CPUs so far."""
    return ram.run_points[0] + ram.point[ARMED] - ram.point[LEFT]


@kernel
def shorten(ram):
    """Have the next point be a decision."""
    ram.point[ARMED] += 1 - ram.point[LEFT]
    ram.point[LEFT] = 1


@kernel
def count(ram, cpu):
    """Add what a CPU that hands its lease over has passed since the countdown was set. If it does so by
    itself, that is one point more.
    """
    passed = ram.point[ARMED] - ram.point[LEFT] + (ram.cpu_at_point[cpu] == 0)
    ram.point[ARMED] = ram.point[LEFT]
    ram.cpu_points[cpu] += passed
    ram.run_points[0] += passed


@kernel
def note_touched(ram, cpu, number, where, operation, others):
    """Keep a point, or where a CPU has handed over by itself, and the CPUs that could run instead."""
    n = ram.run_touched[0]
    ram.run_touched[0] = n + 1
    if n < ram.nr_touched:
        ram.touched[n, 0], ram.touched[n, 1], ram.touched[n, 2] = cpu, number, where
        ram.touched[n, 3], ram.touched[n, 4] = operation, others


@kernel
def passes_by(ram, cpu):
    """At the end of a countdown that was cut to look at something: go on, unless there is something to decide
    (False).
    """
    passed = ram.point[ARMED] - ram.point[LEFT]
    i = ram.cpu_listed[cpu]
    due = (
        ram.strategy == LISTED
        and ram.listed[i, 0] == cpu
        and ram.listed[i, 1] <= ram.cpu_points[cpu] + passed
    )
    if due or ram.point[SPINS]:
        return False
    ram.cpu_points[cpu] += passed
    ram.run_points[0] += passed
    arm(ram, cpu)
    return True


@kernel
def _is_drawn(ram, site, places):
    """PLACES: is this one of the places of the run, one of so many?"""
    number = (site ^ ram.point[SALT]) * 0x2545F4914F6CDD1D
    return ((number >> 32) & 0x7FFFFFFF) % max(places, 1) == 0


@kernel
def is_nothing(ram, site):
    """PLACES: is there nothing to decide at this point, whichever CPU has come to it?"""
    passed = _passed(ram)
    if ram.point[SPINS] or passed >= min(ram.point[DUE], ram.point[BACK]):
        return False
    if ram.points_max > 0 and passed >= ram.run_points_bound[0]:
        return False
    return not _is_drawn(ram, site, ram.places // IN_HOOKS)


@kernel
def is_elsewhere(ram, cpu, site):
    """HOOKS, PLACES: is this no place for a decision?"""
    if ram.strategy == PLACES:
        if _is_drawn(ram, site, ram.places if ram.cpu_hook[cpu] == 0 else ram.places // IN_HOOKS):
            ram.point[HOLDS] = ram.run_changes[0] < HOLDS_MAX and _draw(ram) % ram.holds_up == 0
        return ram.point[HOLDS] == 0 and _passed(ram) < min(ram.point[DUE], ram.point[BACK])
    return ram.strategy == HOOKS and ram.cpu_hook[cpu] == 0 and _draw(ram) % ELSEWHERE != 0


# --- the choice ---------------------------------------------------------------------------------------------


@kernel
def _remaining(ram, c):
    """How many points has the CPU yet to pass, of those that were counted in another run? At least 1."""
    return max(ram.cpu_expected[c] - ram.cpu_points[c], 1)


@kernel
def _weight(ram, c, without, starved):
    """With which chance, compared with others, is this CPU chosen?"""
    if ram.cpu_eligible[c] == 0 or c in (without, starved):
        return 0
    return _remaining(ram, c) if ram.strategy == SURW else 1


@kernel
def _drawn(ram, without, starved):
    """Draw an eligible CPU; NOBODY if there is none but those named."""
    total = 0
    for c in range(ram.nr_cpus):
        total += _weight(ram, c, without, starved)
    if total == 0:
        return NOBODY
    skip = _draw(ram) % total
    for c in range(ram.nr_cpus):
        skip -= _weight(ram, c, without, starved)
        if skip < 0:
            return c
    return NOBODY


@kernel
def _highest(ram, without):
    """Find the eligible CPU of the highest priority; NOBODY if there is none but the one named."""
    best = NOBODY
    for c in range(ram.nr_cpus):
        if ram.cpu_eligible[c] and c != without:
            if best < 0 or ram.cpu_priority[c] > ram.cpu_priority[best]:
                best = c
    return best


@kernel
def _earliest(ram, without):
    """Find the eligible CPU whose virtual time is least; NOBODY if there is none but the one named."""
    best = NOBODY
    for c in range(ram.nr_cpus):
        if ram.cpu_eligible[c] and c != without:
            if best < 0 or ram.cpu_order_ns[c] < ram.cpu_order_ns[best]:
                best = c
    return best


@kernel
def _from_list(ram, leaving, usual):
    """Give whom the list names here, if that CPU may run."""
    i, chosen = ram.cpu_listed[leaving], usual
    while ram.listed[i, 0] == leaving and ram.listed[i, 1] <= ram.cpu_points[leaving]:
        chosen = ram.listed[i, 2]
        i += 1
    ram.cpu_listed[leaving] = i
    return chosen if 0 <= chosen < ram.nr_cpus and ram.cpu_eligible[chosen] else usual


@kernel
def _lower(ram, cpu):
    """PCT: let all others go before this CPU."""
    ram.run_lowest[0] -= 1
    ram.cpu_priority[cpu] = ram.run_lowest[0]


@kernel
def _hold_up(ram, leaving):
    """PLACES: hold the CPU up that comes to a place of the run. Returns the one that was held up if it is its
    time to go on, NOBODY if there is none.
    """
    back = NOBODY
    if ram.run_points[0] >= ram.point[BACK]:
        back, ram.run_held_up[0], ram.point[BACK] = ram.run_held_up[0], NOBODY, NEVER
    if ram.point[HOLDS]:
        ram.point[HOLDS] = 0
        ram.run_changes[0] += 1
        ram.run_held_up[0] = leaving
        least, lengths = HELD_UP_BITS
        ram.point[BACK] = ram.run_points[0] + (1 << (least + _draw(ram) % lengths))
    return back


@kernel
def _strategys(ram, leaving, at_point, without, usual):
    """Give the CPU that the strategy chooses, NOBODY if it does not mind."""
    if ram.strategy == LISTED:
        return _from_list(ram, leaving, usual)
    if ram.strategy == PCT:
        if at_point and ram.run_changes[0] < CHANGES_MAX:
            if ram.run_points[0] >= ram.change_point[ram.run_changes[0]]:
                ram.run_changes[0] += 1
                _lower(ram, leaving)
        return _highest(ram, without)
    starved = ram.starved if ram.strategy == STARVE else NOBODY
    if ram.strategy == PLACES:
        back = _hold_up(ram, leaving)
        if back >= 0 and ram.cpu_eligible[back]:
            return back
        starved = ram.run_held_up[0]
    if without >= 0:  # who spins would not let it run
        starved = NOBODY
    if at_point:
        without = leaving
    chosen = _drawn(ram, without, starved)
    return chosen if chosen >= 0 or starved < 0 else _drawn(ram, without, NOBODY)


@kernel
def choose(ram, leaving, first, gives_way):
    """Choose among the eligible CPUs; `first` is one of them. `leaving` hands the lease over, NOBODY if it
    lay free.
    """
    if leaving < 0:
        return first
    at_point = ram.cpu_at_point[leaving] == 1
    if at_point and ram.point[SPINS]:
        gives_way = True
        _lower(ram, leaving)
    ram.point[SPINS] = 0
    without = leaving if gives_way else NOBODY
    usual = leaving if at_point and not gives_way and ram.cpu_eligible[leaving] else _earliest(ram, without)
    if usual < 0:  # nobody is there to give way to
        usual = leaving
    chosen = _strategys(ram, leaving, at_point, without, usual)
    if chosen < 0:
        chosen = usual
    if ram.records and not at_point:
        note_touched(ram, leaving, ram.cpu_points[leaving], 0, chosen, _others(ram, chosen))
    if chosen != usual:
        _log(ram, leaving, chosen, at_point)
    return chosen


@kernel
def _others(ram, chosen):
    """Give the eligible CPUs but the chosen one, a bit each."""
    found = 0
    for c in range(ram.nr_cpus):
        if ram.cpu_eligible[c] and c != chosen:
            found |= 1 << c
    return found


@kernel
def _log(ram, leaving, chosen, at_point):
    n = ram.run_switches[0]
    ram.run_switches[0] = n + 1
    if n < ram.nr_switches:
        ram.switch[n, 0], ram.switch[n, 1], ram.switch[n, 2] = leaving, ram.cpu_points[leaving], chosen
        ram.switch[n, 3] = ram.point[WHERE] if at_point else 0
        ram.switch[n, 4] = ram.point[SITE] if at_point else 0
