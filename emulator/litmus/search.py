"""Go through all schedules of a small test with at most so many preemptions, those with fewer first.

    search = Search(preemptions=2)
    while (todo := search.next()) is not None:      # None: over, or until something has been told
        search.tell(explore(todo))

A schedule is a list of *preemptions*, and usual turns else: the CPU goes on, and where it waits that CPU runs
whose virtual time is least (cpus/strategies.py); each choice that is not the usual one counts. From a run
with k of them come those with one more, behind its last one, wherever that may matter (touched.py). Which
words two CPUs share is learnt on the way: at the end of a level, runs whose words have turned out to be
shared are run again for the choices that they had there. A choice that leads to a moment at which a run with
no more preemptions has been, all CPUs equally far and the same one to run, is not taken. And of the places
where a CPU could be stopped in a stretch only the first is, and then those behind accesses that turned out to
conflict with what the others did meanwhile: between them, to be stopped is the same. So iterative context
bounding (Musuvathi and Qadeer, PLDI 2007), with the order of conflicting accesses for the state. Nothing is
drawn. Left out: who runs a schedule.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from emulator.litmus.touched import Prefix, Touched, nothing_touched


@dataclass(frozen=True, slots=True)
class Todo:
    """A schedule to run, and the words whose accesses are choices behind it. `again`: it was run before, with
    fewer words.
    """

    prefix: Prefix
    places: np.ndarray
    again: bool = False


@dataclass(frozen=True, slots=True)
class Explored:
    """What a schedule came to. `choices` and `advances` as touched.py gives them, and the moments that it
    `passed`. `taken`: its preemptions could be made; `ends`: nothing comes behind it; `places`: words that
    were looked at; `possible`: choices that it had in all.
    """

    prefix: Prefix
    order: int = 0
    touched: Touched = field(default_factory=nothing_touched)
    choices: np.ndarray = field(default_factory=lambda: np.zeros((0, 5), np.int64))
    advances: Sequence[Prefix] = ()
    passed: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    places: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    possible: int = 0
    taken: bool = True
    ends: bool = False
    again: bool = False


class Search:
    """What was run, and what is to be run next."""

    def __init__(self, preemptions: int):
        self.preemptions = preemptions
        self.level = 0  # all schedules with fewer preemptions have been run
        self.runs = [0] * (preemptions + 1)  # schedules that were run, by preemptions
        self.known = [1] + [0] * preemptions  # that are to be run, as far as is known
        self.possible = 0  # choices that there were in all
        self.orders: set[int] = set()
        self.touched = nothing_touched()
        self.over = False
        self._waiting: list[deque[Prefix]] = [deque([()]), *(deque() for _ in range(preemptions))]
        self._again: deque[Prefix] = deque()
        self._seen: set[Prefix] = {()}
        self._moments: dict[int, int] = {}  # at which a run has been, or will be: with how many preemptions
        self._looked: dict[Prefix, np.ndarray] = {}  # words that were looked at
        self._out = 0  # schedules that are being run

    def next(self) -> Todo | None:
        """Give the next schedule; None while a result is missing that it goes by, or if all is over."""
        while not self.over:
            for waiting in self._waiting[: self.level + 1]:
                if waiting:
                    self._out += 1
                    return Todo(waiting.popleft(), self.touched.shared)
            if self._again:
                self._out += 1
                return Todo(self._again.popleft(), self.touched.shared, again=True)
            if self._out:
                return None
            self._end_level()
        return None

    def tell(self, explored: Explored) -> None:
        """Learn what a schedule came to."""
        self._out -= 1
        self.touched |= explored.touched
        level = len(explored.prefix)
        if not explored.taken:  # that it cannot be made was not known: it is a run of fewer preemptions
            self.known[level] -= 1
        elif not explored.again:
            self.runs[level] += 1
            self.orders.add(explored.order)
        if explored.ends or not explored.taken:
            return
        for prefix in explored.advances:
            self._add(prefix)
        if level == self.preemptions:
            return
        self._looked[explored.prefix] = explored.places
        if not explored.again:
            self.possible += explored.possible
            for moment in explored.passed.tolist():
                self._is_new(moment, level)
        stretches = set()  # of which a choice is made
        for cpu, number, other, moment, stretch in explored.choices.tolist():
            if stretch not in stretches and self._is_new(moment, level + 1):
                stretches.add(stretch)
                self._add((*explored.prefix, (cpu, number, other)))

    def _add(self, prefix: Prefix) -> None:
        """Have a schedule run, if it was not yet."""
        if prefix not in self._seen:
            self._seen.add(prefix)
            self._waiting[len(prefix)].append(prefix)
            self.known[len(prefix)] += 1

    def _is_new(self, moment: int, level: int) -> bool:
        """Has no run with so few preemptions been there?"""
        if self._moments.get(moment, level + 1) <= level:
            return False
        self._moments[moment] = level
        return True

    def _end_level(self) -> None:
        """Run schedules again whose words have turned out to be shared; if there is none, go on to those with
        one preemption more.
        """
        shared = self.touched.shared
        for prefix, places in self._looked.items():
            if len(np.setdiff1d(shared, places)):
                self._again.append(prefix)
        if not self._again:
            self.over = self.level == self.preemptions or not self._waiting[self.level + 1]
            self.level += not self.over
