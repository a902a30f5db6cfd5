"""How a module declares what it owns of shared memory: fields with the rule that protects them, locks,
constants, counters and costs.

A module says so in tuples at its top, FIELDS, COUNTERS and COSTS; it is listed in `memory_map.py` of its
room; layout.py puts all of them together. Nothing else is shared, sockets and eventfds apart. Declarations
are data: the memory map, reports, the audit, wait-for graphs and checks of the rules are made from them.

A rule says who may write a field while CPUs run, and who may read it, if readers may do more than writers.
Before the CPUs start and after they have stopped everything may be read and written.
    CONFIG               nobody writes it any more; any CPU reads
    OWNER                the CPU whose number is the row; others read only if the field says so
    OwnerOf("task_cpu")  the same where the row is something else: `task_cpu[row]` is the owner's number
    Atomic("fetch_add")  any CPU, by these operations of atomics.py alone; any CPU reads
    Held("zone_lock")    whoever holds that lock (`at` says which of them)
    Exclusive(why)       whoever has the object to himself: took the frame out, froze it, won the race for it
    Racy(why)            any CPU, with plain loads and stores, as in Linux
    OneOf(rule, ...)     whoever one of these allows
Left out: a design's own fields, which the design alone knows (`Design.fields`).
"""

from __future__ import annotations

from dataclasses import dataclass

Size = str | int  # a number, or the name of one of `Sizes`


# --- rules --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Config:
    """Written before the CPUs start, read-only then."""


@dataclass(frozen=True, slots=True)
class AnyCpu:
    """As a rule for readers: any CPU may look."""


@dataclass(frozen=True, slots=True, init=False)
class OwnerOf:
    """The CPU that owns the row, or with `index` 1 the column: its number is the row itself, or lies in the
    field that is named.

    Several fields are a path: OwnerOf("proc_first_task", "task_cpu") is `task_cpu[proc_first_task[row]]`. The
    name "scan" stands for a scan_control: that of a CPU, or behind these that of the kswapd of a node.
    """

    by: tuple[str, ...]
    index: int

    def __init__(self, *by: str, index: int = 0):
        object.__setattr__(self, "by", by)
        object.__setattr__(self, "index", index)


@dataclass(frozen=True, slots=True, init=False)
class Atomic:
    """Any CPU, by these operations of atomics.py alone. `why` says what they agree on."""

    operations: tuple[str, ...]
    why: str

    def __init__(self, *operations: str, why: str = ""):
        object.__setattr__(self, "operations", operations)
        object.__setattr__(self, "why", why)


@dataclass(frozen=True, slots=True)
class Held:
    """Whoever holds a lock: that of the same index; with `at` another one.

    `at` is a field that gives the lock's index for this row ("vma_mm"), "zone" or "node" for those of a
    frame, "one" for the only one, "any" for one that the row alone does not tell. `shared`: it is enough to
    hold it as a reader.
    """

    lock: str
    at: str = ""
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Exclusive:
    """Whoever has the object to himself, for the reason given: of a frame, while it has at most so many
    `references`.
    """

    why: str
    references: int | None = None


@dataclass(frozen=True, slots=True)
class Racy:
    """Any CPU, without order: a wrong value does no harm, for the reason given."""

    why: str


@dataclass(frozen=True, slots=True, init=False)
class OneOf:
    """Whoever one of these rules allows."""

    rules: tuple[Rule, ...]

    def __init__(self, *rules: Rule):
        object.__setattr__(self, "rules", rules)


Rule = Config | AnyCpu | OwnerOf | Atomic | Held | Exclusive | Racy | OneOf

CONFIG, ANY, OWNER = Config(), AnyCpu(), OwnerOf()


# --- fields -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Field:
    """Words of shared memory under one name.

    With `shape` (one or two sizes) they are an array of their own; without it they are a member of the
    `Struct` that they stand in. Readers follow the rule of writers unless `reads` says otherwise; CONFIG,
    Atomic and Racy fields anybody may read. `oracle`: it is no part of the machine, but of what judges it.
    `pages`: the array begins on a page of the host.
    """

    name: str
    rule: Rule
    meaning: str
    shape: tuple[Size, ...] = ()
    reads: Rule | None = None
    unit: str = ""
    dtype: str = "int64"
    oracle: bool = False
    pages: bool = False


SPIN, RWSEM, FLAG, BIT = "spin", "rwsem", "flag", "bit"


@dataclass(frozen=True, slots=True)
class Lock:
    """A word that is a lock. `linux` is what the kernel calls it, `kind` says what the word holds.

    SPIN: 0 or the holder + 1. RWSEM: -1 for a writer, else the number of readers. FLAG: 1 while somebody
    holds it. BIT: bit `bit` of the field `word`, which is declared elsewhere. Who holds an `irq_safe` lock
    takes no interrupts, and must not wait for acks.
    """

    name: str
    linux: str
    meaning: str
    shape: tuple[Size, ...] = ()
    irq_safe: bool = False
    kind: str = SPIN
    word: str = ""
    bit: int = 0

    @property
    def rule(self) -> Rule:
        """The lock's operations (locks.py), and no other."""
        return Atomic("compare_exchange", "exchange", "store_release", "fetch_add", why="a lock")

    @property
    def reads(self) -> Rule:
        return ANY

    @property
    def dtype(self) -> str:
        return "int64"


@dataclass(frozen=True, slots=True)
class Struct:
    """Members of an array of structs: the words of one page, or CPU, lie together.

    All that modules declare for the same `count` make one array. Members of one `line` lie together and begin
    on a cache line of their own, away from words that others write. Where all of a count's members have the
    line "", the struct is packed, each member at its natural alignment.
    """

    count: str
    line: str
    members: tuple[Field | Lock, ...]


@dataclass(frozen=True, slots=True)
class Constant:
    """One word of the header, written before the CPUs start: `ram.nr_cpus`."""

    name: str
    meaning: str
    unit: str = ""


Declaration = Struct | Field | Lock | Constant


# --- counters and costs -------------------------------------------------------------------------------------

VMSTAT = "vmstat"  # as Linux 6.12 prints it in /proc/vmstat
PERF = "perf"  # as perf stat counts it
INTERRUPTS = "interrupts"  # a row of /proc/interrupts
OURS = "ours"  # of this emulator
# rare branches, on which "no violation" depends: whether a run has taken them at all is reported beside it
EXERCISED = "exercised"  # of the kernel, whatever the design
DEFERRED = "deferred"  # of designs that let flushes wait: reported for those that rely on them


@dataclass(frozen=True, slots=True)
class Counter:
    """What every CPU counts for itself, `ram.pgfault[cpu] += 1`, and nobody else writes."""

    name: str
    group: str
    meaning: str
    unit: str = "events"


@dataclass(frozen=True, slots=True)
class Cost:
    """What an event adds to a CPU's virtual clock: the constant `ram.cost_NAME`. A machine file gives it,
    with its source; `least` is the smallest that it may be.
    """

    name: str
    meaning: str
    unit: str = "ns"
    least: int = 0
