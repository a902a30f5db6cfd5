"""What a recorded run touched: where its CPUs could have taken turns otherwise, and which of that matters.

A record has a row for each scheduling point, in the order of the run, and for each time that a CPU handed
over by itself (cpus/strategies.py: TOUCHED_WORDS). Two accesses *conflict* if they are of different CPUs, to
the same word, and one writes. To stop a CPU before an access that conflicts with none is the same as to stop
it behind that; so only those count before which it can be stopped to some effect: a later access of another
CPU conflicts with it, or, in this run, no other CPU has come to that word yet. Left out: what depends on
virtual time alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cpus.rules import OPERATIONS, READING

CPU, NUMBER, WHERE, OPERATION, OTHERS = range(5)
READS = tuple(OPERATIONS.index(name) for name in READING)
NOWHERE = 0  # a CPU has handed over by itself

Prefix = tuple[tuple[int, int, int], ...]  # preemptions: CPU that stops, its points, CPU that runs


@dataclass(frozen=True, slots=True)
class Touched:
    """Who has touched which words, of one run or of many: places, and for each a bit of every CPU that was
    there, and of those that wrote.
    """

    places: np.ndarray
    cpus: np.ndarray
    writers: np.ndarray

    def __or__(self, other: Touched) -> Touched:
        places, at = np.unique(np.concatenate((self.places, other.places)), return_inverse=True)
        cpus, writers = np.zeros(len(places), np.int64), np.zeros(len(places), np.int64)
        np.bitwise_or.at(cpus, at, np.concatenate((self.cpus, other.cpus)))
        np.bitwise_or.at(writers, at, np.concatenate((self.writers, other.writers)))
        return Touched(places, cpus, writers)

    @property
    def shared(self) -> np.ndarray:
        """Words where accesses of two CPUs may conflict."""
        return self.places[(self.cpus & (self.cpus - 1) != 0) & (self.writers != 0)]


def nothing_touched() -> Touched:
    """Begin."""
    none = np.zeros(0, np.int64)
    return Touched(none, none, none)


def writes(record: np.ndarray) -> np.ndarray:
    """Tell for each row whether it may write; an exchange that fails counts as one that does."""
    return np.isin(record[:, OPERATION], READS, invert=True)


def touched(record: np.ndarray) -> Touched:
    """Give who touched what in one run."""
    points = record[record[:, WHERE] != NOWHERE]
    places, at = np.unique(points[:, WHERE], return_inverse=True)
    cpus, writers, bits = (
        np.zeros(len(places), np.int64),
        np.zeros(len(places), np.int64),
        1 << points[:, CPU],
    )
    np.bitwise_or.at(cpus, at, bits)
    np.bitwise_or.at(writers, at, bits * writes(points))
    return Touched(places, cpus, writers)


def moments(record: np.ndarray) -> np.ndarray:
    """Give when each row's access was made, in rows: at once, or, if the CPU was stopped before it, just
    before that CPU's next row.
    """
    cpu, row = record[:, CPU], np.arange(len(record), dtype=float)
    by_cpu = np.argsort(cpu, kind="stable")
    following = np.full(len(record), np.inf)
    same = cpu[by_cpu][1:] == cpu[by_cpu][:-1]
    following[by_cpu[:-1][same]] = by_cpu[1:][same]
    stopped = np.zeros(len(record), bool)
    stopped[:-1] = (cpu[1:] != cpu[:-1]) & (record[:-1, WHERE] != NOWHERE)
    return np.where(stopped, following - 0.5, row)


def met_later(record: np.ndarray) -> np.ndarray:
    """Tell for each row whether a later access of another CPU conflicts with it, or no other CPU has been
    there at all.
    """
    places, at = np.unique(record[:, WHERE], return_inverse=True)
    cpu, when, wrote = record[:, CPU], moments(record), writes(record)
    cpus = int(cpu.max(initial=0)) + 1
    last, last_write = np.full((len(places), cpus), -1.0), np.full((len(places), cpus), -1.0)
    np.maximum.at(last, (at, cpu), when)
    np.maximum.at(last_write, (at[wrote], cpu[wrote]), when[wrote])
    others = np.where(np.arange(cpus)[None, :] == cpu[:, None], -1, last[at])
    others_write = np.where(np.arange(cpus)[None, :] == cpu[:, None], -1, last_write[at])
    latest = np.where(wrote, others.max(axis=1), others_write.max(axis=1))
    return (latest > np.arange(len(record))) | (others.max(axis=1) < 0)


def choices(record: np.ndarray, after: int, places: np.ndarray) -> np.ndarray:
    """Give what could have been chosen instead behind row `after`: CPU that stops, its points, CPU that runs,
    the moment (`moment_keys`), and a number of the stretch: of those with the same number the first will do,
    as `advances` says which others make a difference. Where a CPU handed over by itself, and at accesses to
    these places that matter.
    """
    at_wait = record[:, WHERE] == NOWHERE
    matters = np.isin(record[:, WHERE], places) & ~at_wait & met_later(record)
    chosen = (matters | at_wait) & (record[:, OTHERS] != 0)
    chosen[: after + 1] = False
    begins = (record[1:, CPU] != record[:-1, CPU]) | at_wait[:-1]
    stretch = np.cumsum(np.r_[False, begins])
    rows, states = np.flatnonzero(chosen), _states(record)
    row, other = _others(record[rows])
    row = rows[row]
    kind = (stretch[row] * 64 + other) * 2 + at_wait[row]
    return np.column_stack((record[row][:, (CPU, NUMBER)], other, moment_keys(states[row], other), kind))


def advances(record: np.ndarray, prefix: Prefix) -> list[Prefix]:
    """Give the schedules in which one of these preemptions comes later, and next makes a difference: behind
    the first access of the stopped CPU that conflicts with what others did while it was stopped.
    """
    when, wrote, found = moments(record), writes(record), []
    for i, (cpu, number, other) in enumerate(prefix):
        (at,) = np.nonzero((record[:, CPU] == cpu) & (record[:, NUMBER] == number))
        if not len(at) or record[at[-1], WHERE] == NOWHERE:
            continue
        start = int(at[-1])
        meanwhile = (record[:, CPU] != cpu) & (when > start) & (when < when[start])
        used = set(record[meanwhile, WHERE].tolist())
        written = set(record[meanwhile & wrote, WHERE].tolist())
        for row in (start + np.flatnonzero(record[start:, CPU] == cpu)).tolist():
            where = int(record[row, WHERE])
            if where == NOWHERE:
                break
            if where in written or (wrote[row] and where in used):
                later = (cpu, int(record[row, NUMBER]) + 1, other)
                found.append((*prefix[:i], later, *prefix[i + 1 :]))
                break
    return found


def passed(record: np.ndarray, after: int) -> np.ndarray:
    """Give the moments that a run came through behind row `after`, as choices have them."""
    return moment_keys(_states(record), record[:, CPU])[after + 1 :]


def _others(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give row and number of each CPU that could have run instead."""
    row, other = np.nonzero((rows[:, OTHERS, None] >> np.arange(64)[None, :]) & 1)
    return row, other


def possible(record: np.ndarray, after: int) -> int:
    """Count what could have been chosen instead behind a row, whether it matters or not."""
    return len(_others(record[after + 1 :])[0])


# --- the same moment ----------------------------------------------------------------------------------------


def moment_keys(states: np.ndarray, cpus: np.ndarray) -> np.ndarray:
    """Name moments: equal if all CPUs had come equally far, by accesses that found the same, and the same CPU
    runs.
    """
    return _mixed(states ^ _mixed(cpus.astype(np.uint64) + np.uint64(1))).view(np.int64)


def order_of(record: np.ndarray) -> int:
    """Give a number by which two runs are the same if each CPU did the same, and conflicting accesses had the
    same order.
    """
    return int(_accesses(record).sum(dtype=np.uint64))


def _states(record: np.ndarray) -> np.ndarray:
    """Give a number for what had been done when each row was reached, whatever the order of what does not
    conflict.
    """
    when, rows = moments(record), np.arange(len(record))
    by_time = np.argsort(when, kind="stable")
    done = np.concatenate((np.zeros(1, np.uint64), np.cumsum(_accesses(record)[by_time], dtype=np.uint64)))
    return done[np.searchsorted(when[by_time], rows, side="left")]


def _accesses(record: np.ndarray) -> np.ndarray:
    """Give a number for each access: CPU, how many it had made before, word, kind, and which write of that
    word it found there.
    """
    by_time = np.argsort(moments(record), kind="stable")
    made = record[by_time]
    _, at = np.unique(made[:, WHERE], return_inverse=True)
    words = _mixed(made[:, WHERE].astype(np.uint64) * np.uint64(16) + made[:, OPERATION].astype(np.uint64))
    for count in (_count_before(at, writes(made)), _count_before(made[:, CPU], np.ones(len(made), bool))):
        words = _mixed(words ^ count.astype(np.uint64))
    words = _mixed(words ^ made[:, CPU].astype(np.uint64))
    words[made[:, WHERE] == NOWHERE] = 0
    found = np.empty(len(record), np.uint64)
    found[by_time] = words
    return found


def _count_before(group: np.ndarray, what: np.ndarray) -> np.ndarray:
    """Count, for each item, those of its group before it of which `what` is true."""
    by_group = np.argsort(group, kind="stable")
    counted = what[by_group].astype(np.int64)
    before = np.cumsum(counted) - counted
    if len(group):
        first = np.r_[True, group[by_group][1:] != group[by_group][:-1]]
        before -= np.maximum.accumulate(np.where(first, before, 0))
    found = np.empty(len(group), np.int64)
    found[by_group] = before
    return found


def _mixed(words: np.ndarray) -> np.ndarray:
    """Spread 64-bit words (splitmix64)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
