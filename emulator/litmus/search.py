"""Go through all schedules of a small test with at most so many preemptions, those with fewer first.

    search = Search(preemptions=2)
    while (todo := search.next()) is not None:      # None: over, or until something has been told
        search.tell(explore(todo))

A schedule is a list of *preemptions*, and usual turns else: the CPU goes on, and where it waits that CPU runs
whose virtual time is least (cpus/strategies.py); each choice that is not the usual one counts. From a run
with k of them come those with one more, behind its last one, wherever that may matter (touched.py). Which
words two CPUs share is learnt on the way: at the end of a level, runs whose words have turned out to be
shared are run again for the choices that they had there. A choice that leads to a moment at which a run with
no more preemptions has been, all CPUs equally far and the same one to run, is not taken. So iterative context
bounding (Musuvathi and Qadeer, PLDI 2007), with the order of conflicting accesses for the state. Nothing is
drawn. Left out: who runs a schedule.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from emulator.litmus.touched import Touched, nothing_touched

Switch = tuple[int, int, int]  # CPU that stops, its points, CPU that runs
Prefix = tuple[Switch, ...]


@dataclass(frozen=True, slots=True)
class Todo:
    """A schedule to run, and the words whose accesses are choices behind it. `again`: it was run before, for
    other words.
    """

    prefix: Prefix
    places: np.ndarray
    again: bool = False


@dataclass(frozen=True, slots=True)
class Explored:
    """What a schedule came to. `choices` as touched.py gives them, and the moments that it `passed`. `taken`:
    its last preemption could be made; `ends`: nothing comes behind it; `places`: words that were looked at;
    `possible`: choices that it had in all.
    """

    prefix: Prefix
    order: int = 0
    touched: Touched = field(default_factory=nothing_touched)
    choices: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.int64))
    passed: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    places: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    possible: int = 0
    taken: bool = True
    ends: bool = False
    again: bool = False


@dataclass(slots=True)
class _Node:
    """A schedule that is gone on from."""

    prefix: Prefix
    places: np.ndarray
    choices: deque[np.ndarray]

    def take(self) -> Switch | None:
        """Take the next choice."""
        while self.choices and not len(self.choices[0]):
            self.choices.popleft()
        if not self.choices:
            return None
        cpu, number, other = self.choices[0][0, :3].tolist()
        self.choices[0] = self.choices[0][1:]
        return cpu, number, other


class Search:
    """What was run, and what is to be run next."""

    def __init__(self, preemptions: int):
        self.preemptions = preemptions
        self.level = 0  # all schedules with fewer preemptions have been run
        self.runs = [0] * (preemptions + 1)  # schedules that were run, by preemptions
        self.known = [1] + [0] * preemptions  # that are to be run, as far as is known
        self.pruned = 0  # choices that could not matter
        self.same = 0  # that led where a run had been
        self.not_taken = 0
        self.orders: set[int] = set()
        self._moments: dict[int, int] = {}  # at which a run has been, or will be: with how many preemptions
        self.touched = nothing_touched()
        self.over = False
        self._nodes: list[list[_Node]] = [[] for _ in range(preemptions)]  # by preemptions
        self._at = [0] * preemptions  # whose choices are taken now
        self._by_prefix: dict[Prefix, _Node] = {}
        self._todo: deque[Todo] = deque([Todo((), self.touched.places)])
        self._out = 0  # schedules that are being run

    def next(self) -> Todo | None:
        """Give the next schedule; None while a result is missing that it goes by, or if all is over."""
        while not self._todo and not self.over:
            if (todo := self._from_choices()) is not None:
                self._todo.append(todo)
            elif self._out:
                return None
            else:
                self._end_level()
        if self.over:
            return None
        self._out += 1
        return self._todo.popleft()

    def tell(self, explored: Explored) -> None:
        """Learn what a schedule came to."""
        self._out -= 1
        self.touched |= explored.touched
        if explored.again:
            self._more_choices(explored)
            return
        level = len(explored.prefix)
        self.runs[level] += 1
        self.not_taken += not explored.taken
        self.orders.add(explored.order)
        if level == self.preemptions or explored.ends or not explored.taken:
            return
        for moment in explored.passed.tolist():
            self._is_new(moment, level)
        node = _Node(explored.prefix, explored.places, deque())
        self._nodes[level].append(node)
        self._by_prefix[node.prefix] = node
        self.pruned += explored.possible
        self._add_choices(node, explored)

    def _from_choices(self) -> Todo | None:
        """Take the next choice of a schedule of the lowest level that has one."""
        for level in range(self.level):
            while self._at[level] < len(self._nodes[level]):
                node = self._nodes[level][self._at[level]]
                if (choice := node.take()) is not None:
                    return Todo((*node.prefix, choice), self.touched.shared)
                self._at[level] += 1
        return None

    def _more_choices(self, explored: Explored) -> None:
        node = self._by_prefix[explored.prefix]
        node.places = np.union1d(node.places, explored.places)
        self._at[len(node.prefix)] = 0
        self._add_choices(node, explored)

    def _add_choices(self, node: _Node, explored: Explored) -> None:
        """Add those that lead to new moments."""
        level = len(node.prefix) + 1
        new = [i for i, one in enumerate(explored.choices[:, 3].tolist()) if self._is_new(one, level)]
        node.choices.append(explored.choices[new])
        self.known[level] += len(new)
        self.same += len(explored.choices) - len(new)
        self.pruned -= len(explored.choices)

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
        for node in (node for nodes in self._nodes[: self.level] for node in nodes):
            missing = np.setdiff1d(shared, node.places)
            if len(missing):
                self._todo.append(Todo(node.prefix, missing, again=True))
        if not self._todo:
            self.over = self.level == self.preemptions or not self._nodes[self.level]
            self.level += 1
