"""Every ordered pair of the kernel's calls on pages of each kind flushes what Linux's source says
(tests/support/two_calls.py), with nothing, a load or a store between the two.
"""

from __future__ import annotations

from copy import deepcopy
from itertools import product

import pytest

from emulator import load_machine, run_design, run_script
from tests.support.two_calls import (
    ALL,
    ANON,
    CALLS,
    CODE,
    COPY,
    FILE,
    FILES,
    KINDS,
    PAGES,
    PRIVATE,
    SHARED,
    WRITE,
    Model,
)
from workloads import Region, Script

AT = 512 * 1024  # the start of a page table
PLACES = {"edge": AT + 8, "m": AT + 16, "other edge": AT + 24, "place": AT + 32, "last edge": AT + 40}
EDGES = ("edge", "other edge", "last edge")
NAMED = {call.name: call for call in CALLS}
LOADED = {
    ANON: ("", "load", "store"),
    PRIVATE: ("", "load", "store"),
    SHARED: ("", "load", "store"),
    CODE: ("", "load"),
}
SENT = "remote_send_ipi/"


def machine():
    """A machine on which nothing is reclaimed or moved by itself."""
    changes = {"nodes.0.memory_mib": 32, "nodes.1.memory_mib": 32, "sysctl.numa_balancing": 0}
    return load_machine("guest-8cpu", cpus=3, overrides=changes)


def sequences(kind, touches, rules=Model):
    """Give (before, call, touch, call) for all that can be called so, "" for nothing; what each part flushes,
    by the model; and how many children are forked.
    """
    model = rules(kind)
    calls = [call.name for call in CALLS if kind in call.kinds]
    for before, *steps in product(LOADED[kind], calls, touches, calls):
        trial = deepcopy(model)
        trial.map()
        trial.pte, trial.children = None, 0
        flushes = [_flushes(trial, step) for step in (before, *steps)]
        if None not in flushes:
            yield (before, *steps), flushes[1:], trial.children
            trial.flushes = []
            trial.zap()
            trial.clean_file()
            model = trial


def _flushes(model, step):
    """What a call flushes; None if it cannot be made."""
    model.flushes = []
    if step and not NAMED[step].allowed(model):
        return None
    if step:
        NAMED[step].does(model)
    return model.flushes


def script(kind, plan):
    """Give the script of one process that makes all sequences of a plan; a snapshot around each call."""

    def rows(t, step, forks):
        for name, *arguments in NAMED[step].rows if step else ():
            yield t.fork(f"child{next(forks)}") if name == "fork" else getattr(t, name)(*arguments)

    def main(t):
        yield [t.place(name, vpn) for name, vpn in PLACES.items()]
        yield [[t.mmap(edge), t.load(edge)] for edge in EDGES] + [t.store("buffer"), t.post("begin")]
        yield t.spin("runs")
        for number, ((before, *steps), _, children) in enumerate(plan):
            forks = iter(range(children))
            yield [t.mmap("m"), *rows(t, before, forks)]
            for part, step in enumerate(steps):
                yield [
                    t.snapshot(f"{number} {part}"),
                    *rows(t, step, forks),
                    t.snapshot(f"{number} {part} done"),
                ]
            for child in range(children):
                yield [t.post(f"over{child}"), t.wait(f"gone{child}")]
            yield [t.munmap("m")] + ([t.fdatasync("whole")] if kind in FILES else [])
        yield t.post("end")

    def reader(t):
        yield [t.spin("begin"), t.load("edge"), t.post("runs"), t.spin("end")]

    def child(number):
        forks = sum(children > number for _, _, children in plan)
        return lambda t: [[t.wait(f"over{number}"), t.exit(f"gone{number}")] for _ in range(max(forks, 1))]

    file = {} if kind == ANON else {"file": "data"}
    how = {"writable": kind != CODE, "executable": kind == CODE, "shared": kind == SHARED, "mapped": False}
    regions = [Region(name, PAGES, **file, **how) for name in ("m", "place")]
    regions += [Region(edge, 1, file="edges", shared=True, mapped=False) for edge in EDGES]
    regions += [
        Region("buffer", PAGES, file="buffer", shared=True, writable=True),
        Region("source", PAGES, file="source", mapped=False),
    ]
    regions += [Region("whole", PAGES + 1, file="data", mapped=False)] if file else []
    made = Script("two calls", regions=regions)
    made.process("main", [main, reader], cpus=[0, 1])
    for number in range(2):
        made.process(f"child{number}", [child(number)], cpus=[2], forked=True)
    return made


def differences(kind, plan):
    """Run the sequences of a plan; gives a sentence for each part that flushes otherwise than it says."""
    result, noted = run_script("linux", machine(), script(kind, plan), leases=1, seed=1)
    assert result.clean
    found = []
    for number, ((before, *steps), expected, children) in enumerate(plan):
        for part, step in enumerate(steps):
            was = noted.between(f"{number} {part}", f"{number} {part} done")
            sent = {
                event.removeprefix(SENT): n for event, n in was.tlb_flush.items() if event.startswith(SENT)
            }
            wanted = {str(what): expected[part].count(what) for what in expected[part]}
            # what a child's CPU is sent beside that is not looked at
            if was.interrupts[1] != len(expected[part]) or (not children and sent != wanted):
                after = " then ".join(word for word in (before, *steps[:part]) if word) or "nothing"
                found.append(
                    f"{kind}: {step} after {after}: {was.interrupts[1]} flushes {sent}, "
                    f"in Linux {len(expected[part])} {wanted} ({NAMED[step].source})"
                )
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_each_pair_of_calls_flushes_what_linux_flushes(kind):
    plan = list(sequences(kind, ("", "load", "store")))
    assert len(plan) > 2000
    assert differences(kind, plan) == []


class BothWays(Model):
    """Flushes at mprotect whenever a PTE changes."""

    def needs_flush(self, old, new):
        return old != new


class FreedOnce(Model):
    """Forgets that what was freed lazily before can be written to again."""

    def madvise_free(self):
        if self.pte and self.pte.shows == COPY and self.copy.lazy:
            self.complete_pending()
        else:
            super().madvise_free()


class WritesAtOnce(Model):
    """Writes each dirty page that reclaim meets, after a flush of its own."""

    def madvise_pageout(self):
        dirty = self.pte and self.pte.shows == FILE and self.pte.dirty
        super().madvise_pageout()
        self.flushes += [ALL] * (PAGES - 1) if dirty else []


@pytest.mark.parametrize(
    ("rules", "kind", "said"),
    [
        (BothWays, SHARED, "mprotect PROT_READ after load then mprotect PROT_NONE: 0 flushes"),
        (FreedOnce, ANON, "MADV_FREE after store then MADV_FREE then store: 1 flushes"),
        (WritesAtOnce, SHARED, "MADV_PAGEOUT after store: 1 flushes"),
    ],
)
def test_a_rule_that_is_not_linux_s_is_noticed(rules, kind, said):
    """The three that the engine once had."""
    found = differences(kind, list(sequences(kind, ("", "store"), rules)))
    assert any(said in sentence for sentence in found), found[:5]


def repeated(kind, *calls):
    """A writer that repeats two calls on 16 pages a hundred times, and a reader."""

    def main(t):
        yield [t.store("m"), t.post("stored"), t.spin("loaded")]
        yield [getattr(t, name)(*rest) for _ in range(100) for name, *rest in calls]
        yield t.post("stop")

    def reader(t):
        yield [t.spin("stored"), t.load("m"), t.post("loaded"), t.spin("stop")]

    region = Region("m", 16, writable=True, **({"file": "f", "shared": True} if kind == SHARED else {}))
    return Script("repeated", regions=[region]).process("p", [main, reader], cpus=[0, 1]).workload()


@pytest.mark.parametrize(
    ("kind", "calls", "shootdowns"),
    [
        (ANON, [("madvise", "m", "MADV_FREE"), ("store", "m")], 100),
        (ANON, [("mprotect", "m", "PROT_NONE"), ("mprotect", "m", WRITE)], 100),
        # one of the batch, and one as the next call completes what is counted as pending
        (SHARED, [("store", "m"), ("madvise", "m", "MADV_PAGEOUT")], 199),
    ],
)
def test_a_hundred_rounds(kind, calls, shootdowns):
    result = run_design("linux", machine(), repeated(kind, *calls), leases=1, seed=1)
    assert result.clean
    assert result.tlb_shootdowns == shootdowns
