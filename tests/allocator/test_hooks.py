"""A hook is declared once (allocator/hooks.py), and the kernel calls it so: with these arguments, under these
locks.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping

import pytest

from allocator import hooks
from allocator.filemap import truncate_file_page, write_to_file
from allocator.hooks import HOOKS, Hook
from allocator.madvise import madvise
from allocator.mmap import do_mmap, do_munmap
from allocator.mprotect import mprotect
from allocator.mremap import mremap
from cpus.abi.numbers import MADV_DONTNEED, MADV_FREE, PROT_READ, PROT_WRITE, STORE
from cpus.declare import Held
from designs.design import DesignError, hook
from emulator.small_machine import ANON_VPN, FILE, FILE_VPN, SHARED, SHARED_VPN
from tests.support.locks import holds
from tests.support.sources import sources


def declared() -> dict[str, Hook]:
    return {name: value for name, value in vars(hooks).items() if isinstance(value, Hook)}


def calls_of(texts: Iterable[str]) -> list[ast.Call]:
    """Give the calls of hooks: `call(ram, HOOK_..., cpu, a, b, c, d)`."""
    return [
        node
        for text in texts
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "call"
        and ast.unparse(node.args[1]).startswith("HOOK_")
    ]


def mistakes(known: Mapping[str, Hook], texts: Iterable[str]) -> list[str]:
    """Say which hooks are declared and never called, called and not declared, or given other arguments."""
    texts = list(texts)
    calls = calls_of(texts)
    called = {ast.unparse(one.args[1]) for one in calls}
    found = [f"{name} is declared, but nobody calls it" for name in known if name not in called]
    found += [f"{name} is called, but not declared" for name in sorted(called - set(known))]
    for one in calls:
        name, given = ast.unparse(one.args[1]), [ast.unparse(argument) for argument in one.args[3:]]
        spare = given[len(known[name].asks) :] if name in known else []
        if len(given) != 4 or any(argument != "0" for argument in spare):
            asks = ", ".join(argument for argument, _ in known[name].asks) or "nothing"
            found.append(f"{name} asks for {asks}, and is called with ({', '.join(given)})")
    return found


def half_declared(known: Iterable[Hook]) -> list[str]:
    """Say which hooks do not say what they are."""
    found = []
    for one in known:
        names = [name for name, _ in one.asks]
        if not one.when or not one.result or not all(what for _, what in one.asks):
            found.append(
                f"hook {one.short} must say when it is called, what it is given, and what its result means"
            )
        for held in one.held:
            for lock in getattr(held, "rules", [held]):
                if lock.at not in (*names, "any"):
                    found.append(
                        f"hook {one.short}: which {lock.lock} is held must be an argument (got {lock.at!r})"
                    )
    return found


def test_every_hook_is_declared_and_called():
    """By its arguments and no others."""
    texts = sources("allocator").values()
    assert half_declared(HOOKS.values()) == []
    assert set(declared().values()) == set(HOOKS.values())
    assert mistakes(declared(), texts) == []


def test_a_half_done_hook_is_named():
    """Declared alone, called alone, called with what it does not ask for, called with too little."""
    texts = list(sources("allocator").values())
    more = declared() | {"HOOK_SWAP_OUT": Hook("hook_swap_out")}
    assert mistakes(more, texts) == ["HOOK_SWAP_OUT is declared, but nobody calls it"]
    assert mistakes(declared(), [*texts, "call(ram, HOOK_SWAP_OUT, cpu, pfn, 0, 0, 0)"]) == [
        "HOOK_SWAP_OUT is called, but not declared"
    ]
    assert mistakes(declared(), [*texts, "call(ram, HOOK_PRESSURE, cpu, node, zone, 0, 0)"]) == [
        "HOOK_PRESSURE asks for node, and is called with (node, zone, 0, 0)"
    ]
    assert mistakes(declared(), [*texts, "call(ram, HOOK_TICK, cpu, 0)"]) == [
        "HOOK_TICK asks for nothing, and is called with (0)"
    ]


def test_a_half_declared_hook_is_named():
    """Without words; with a lock of which nobody can tell which one it is."""
    assert half_declared([Hook("hook_swap_out", asks=(("pfn", ""),), when="now")]) == [
        "hook swap_out must say when it is called, what it is given, and what its result means"
    ]
    assert half_declared([Hook("hook_swap_out", held=(Held("zone_lock", "zone"),), when="now")]) == [
        "hook swap_out: which zone_lock is held must be an argument (got 'zone')"
    ]


def test_a_design_that_takes_a_hook_wrongly_is_told_what_it_gets():
    """Its arguments by name, as the declaration has them."""
    with pytest.raises(
        DesignError, match=r"hook take must take six arguments, \(ram, cpu, zone, pfn, key, order\) "
    ):
        hook("take")(lambda ram, cpu: 0)
    with pytest.raises(DesignError, match=r"\(ram, cpu, mm, b, c, d\) \(got ram, cpu\)$"):
        hook("mapping_change")(lambda ram, cpu: 0)


# --- the locks ----------------------------------------------------------------------------------------------


class Watched:
    """Calls of hooks on a small machine: which came, and which came without the locks that are declared."""

    def __init__(self, machine, known: Mapping[str, Hook] = HOOKS):
        self.machine, self.came, self.wrong = machine, set[str](), set[str]()
        for name, one in known.items():
            machine.after_hook(name, lambda cpu, *given, one=one: self.note(one, cpu, given))

    def note(self, one: Hook, cpu: int, given: tuple[int, ...]) -> None:
        ram, arguments = self.machine.ram, dict(zip([name for name, _ in one.asks], given))
        self.came.add(one.short)
        for rule in one.held:
            if not holds(ram, cpu, rule, arguments):
                self.wrong.add(f"hook {one.short} is called without {rule}")
        if one.waits and (ram.cpu_no_resched[cpu] or ram.cpu_irq_off[cpu]):
            self.wrong.add(f"hook {one.short} is called under a spin lock, or with interrupts off")


def use_everything(machine) -> None:
    """Faults, writes, reclaim, and every change of mappings, on two CPUs that share an address space."""
    ram = machine.ram
    for cpu in (0, 1):
        machine.run(1, cpu)
    machine.use(FILE_VPN, 20)
    machine.use(FILE_VPN, 20, cpu=1)
    machine.use(ANON_VPN, 16, STORE)
    machine.use(SHARED_VPN, 8, STORE)
    machine.use(ANON_VPN, 16, STORE, cpu=1)
    write_to_file(ram, 0, SHARED, 2)
    mprotect(ram, 0, 1, ANON_VPN, ANON_VPN + 4, PROT_READ)
    mprotect(ram, 0, 1, ANON_VPN, ANON_VPN + 4, PROT_READ | PROT_WRITE)
    madvise(ram, 0, 1, ANON_VPN + 4, ANON_VPN + 6, MADV_FREE)
    madvise(ram, 0, 1, ANON_VPN + 6, ANON_VPN + 8, MADV_DONTNEED)
    machine.reclaim_file(FILE)
    machine.reclaim_file(SHARED)
    truncate_file_page(ram, 0, SHARED, 3)
    mremap(ram, 0, 1, ANON_VPN + 8, 4, ANON_VPN + 0x10000)
    do_munmap(ram, 0, 1, FILE_VPN, FILE_VPN + 8)
    do_mmap(ram, 0, 1, 0, 0, 8)
    machine.use(FILE_VPN, 8)


def test_hooks_are_called_under_the_locks_that_are_declared(small_machine):
    """Whatever a design may rely on is so, and where it may wait it can."""
    machine = small_machine(cpus=2)
    watched = Watched(machine)
    use_everything(machine)
    assert watched.wrong == set()
    assert len(watched.came) >= 20, watched.came
