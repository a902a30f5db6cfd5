"""What the modules of the memory map declare together: checked here, so that half of an extension is named in
a sentence.
"""

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from allocator.hooks import HOOKS
from benchmarks.storm import small_ram
from cpus.compiled import Entry, Text, apart_entries, later, texts_of
from cpus.declare import BIT, Lock, Struct
from cpus.install import install_at
from cpus.layout import assemble
from designs.memory_map import MACHINE
from designs.shelf import SHELF

ROOT = Path(__file__).parents[2]
ROOMS = ("cpus", "allocator", "designs")
DECLARATIONS = ("FIELDS", "COUNTERS", "COSTS")
# functions in Python (cpus/process.py)
SHELL = {"shell_connect", "shell_failed", "shell_panic", "shell_rule", "shell_order"}


def modules_of(rooms=ROOMS):
    """Load every module of these rooms."""
    paths = sorted(path for room in rooms for path in (ROOT / room).rglob("*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    return [importlib.import_module(name) for name in names if not name.endswith("__init__")]


def unlisted(modules, listed):
    """Give a sentence for each module that declares something, or has apart functions, and is on no list."""
    return [
        f"{module.__name__}: {what}, and the module is not listed in memory_map.py of its room"
        for module in modules
        if module not in listed
        for what in (
            *(f"{entry.name} is compiled apart" for entry in apart_entries([module])),
            *(f"{name} declares something" for name in DECLARATIONS if hasattr(module, name)),
        )
    ]


def undefined(layout):
    """Give a sentence for each name of the text table that nothing fills."""
    filled = {entry.text.name for entry in layout.entries} | SHELL | {hook.name for hook in HOOKS.values()}
    filled |= {entry.text.name for kind in SHELF for entry in kind.hooks}
    return [
        f"{module.__name__}: nobody defines {text.name}(ram, ...), which it calls"
        for module in layout.modules
        for text in texts_of(module)
        if text.name not in filled
    ]


def written(rooms=ROOMS):
    """Give the sources of these rooms in one."""
    return "\n".join(path.read_text() for room in rooms for path in sorted((ROOT / room).rglob("*.py")))


# visit_pages counts them through the address of the first; tests/cpus/test_access.py sees each of them count
BY_ADDRESS = ("dtlb_loads", "dtlb_stores", "itlb_loads")


def uncounted(layout, source):
    """Give a sentence for each counter that nothing raises, and each cost that nothing charges."""
    declared = [(module, one) for module in layout.modules for one in getattr(module, "COUNTERS", ())]
    charged = [(module, one) for module in layout.modules for one in getattr(module, "COSTS", ())]
    return [
        f"{module.__name__}: counter {one.name} is declared, and nothing counts it: ram.{one.name}[cpu] += 1"
        for module, one in declared
        if one.name not in BY_ADDRESS and not re.search(rf"\bram\.{one.name}\[\w+\] \+= ", source)
    ] + [
        f"{module.__name__}: cost {one.name} is declared, and nothing charges it: ram.cost_{one.name}"
        for module, one in charged
        if not re.search(rf"\bram\.cost_{one.name}\b", source)
    ]


def untouched(layout, source):
    """Give a sentence for each field, lock and constant that no code reads or writes."""
    names = set(re.findall(r"\bram\.(\w+)", source)) | set(re.findall(r'"(\w+)"', source))
    return [
        f"{module.__name__}: {item.name} is declared, and nothing uses it: ram.{item.name}"
        for module in layout.modules
        for declared in getattr(module, "FIELDS", ())
        for item in (declared.members if isinstance(declared, Struct) else (declared,))
        if not (isinstance(item, Lock) and item.kind == BIT) and item.name not in names
    ]


def used():
    """Give the sources of the rooms without the lines that declare: a name between quotes stands for a field
    that is found by it (the header's constants, the rows of programs).
    """
    return re.sub(r'\b(Field|Lock|Constant|Counter|Cost)\(\s*"\w+"', "", written((*ROOMS, "emulator")))


def planted(source, name="planted"):
    """Make a module of a source."""
    module = ModuleType(name)
    exec(source, module.__dict__)
    return module


def test_every_module_that_declares_something_is_listed():
    assert unlisted(modules_of(), MACHINE.modules) == []


def test_a_module_that_is_not_listed_is_named():
    module = planted("from cpus.compiled import apart\n@apart\ndef lost(ram, cpu):\n    return 0\n")
    assert unlisted([module], MACHINE.modules) == [
        "planted: lost is compiled apart, and the module is not listed in memory_map.py of its room"
    ]
    module = planted("COUNTERS = ()")
    assert unlisted([module], MACHINE.modules) == [
        "planted: COUNTERS declares something, and the module is not listed in memory_map.py of its room"
    ]


def test_every_name_that_is_called_is_defined():
    assert undefined(MACHINE) == []


def test_a_name_that_nobody_defines_is_named():
    module = planted("from cpus.compiled import later\nlost = later('lost', 2)\n")
    layout = assemble("planted", [*MACHINE.modules, module])
    assert undefined(layout) == ["planted: nobody defines lost(ram, ...), which it calls"]


def test_every_counter_counts_and_every_cost_is_charged():
    """By a line of the rooms; tests/emulator/test_counters.py sees them do so in runs."""
    assert uncounted(MACHINE, written()) == []


def test_a_counter_that_nobody_raises_and_a_cost_that_nobody_charges_are_named():
    module = planted(
        "from cpus.declare import OURS, Cost, Counter\n"
        "COUNTERS = (Counter('pglost', OURS, 'pages lost'),)\nCOSTS = (Cost('losing', 'losing a page'),)\n"
    )
    layout = assemble("planted", [*MACHINE.modules, module])
    assert uncounted(layout, written()) == [
        "planted: counter pglost is declared, and nothing counts it: ram.pglost[cpu] += 1",
        "planted: cost losing is declared, and nothing charges it: ram.cost_losing",
    ]


def test_every_field_is_used():
    assert untouched(MACHINE, used()) == []


def test_a_field_that_nothing_uses_is_named():
    module = planted(
        "from cpus.declare import *\nFIELDS = (Field('nobody_reads', OWNER, 'moves', ('nr_cpus',)),)\n"
    )
    layout = assemble("planted", [*MACHINE.modules, module])
    assert untouched(layout, used()) == [
        "planted: nobody_reads is declared, and nothing uses it: ram.nobody_reads"
    ]


def test_numbers_do_not_depend_on_the_order_of_imports():
    """They follow from the names; a layout of the same modules in another order is the same table."""
    assert list(MACHINE.text) == sorted(MACHINE.text)
    assert assemble("other", MACHINE.modules[::-1]).text == MACHINE.text


def test_code_of_another_layout_has_another_type():
    """Compiled code holds numbers and offsets: the name by which the cache knows its type says which."""
    module = planted("from cpus.compiled import later\naaa_first = later('aaa_first', 2)\n")
    other = assemble("machine", [*MACHINE.modules, module])
    assert other.text["hook_tick"] == MACHINE.text["hook_tick"] + 1
    assert other.type != MACHINE.type
    assert assemble("machine", MACHINE.modules).type == MACHINE.type


def test_modules_that_disagree_about_arguments_are_named():
    module = planted("from cpus.compiled import later\npage_fault = later('page_fault', 2)\n")
    with pytest.raises(ValueError, match=r"^planted: text 'page_fault' must take .* 3 .got 2.$"):
        assemble("planted", [*MACHINE.modules, module])


def test_a_function_of_other_arguments_is_refused():
    """Callers would pass what it does not read, or it would read what nobody passed."""
    ram = small_ram(2)
    with pytest.raises(ValueError, match=r"test_memory_map.py:.*too_few must take 5 arguments behind `ram`"):
        install_at(ram, "hook_tick", Entry(Text("hook_tick"), too_few))
    with pytest.raises(
        LookupError, match=r"'text' must be named by a module of the memory map .got 'nobody'"
    ):
        install_at(ram, "nobody", Entry(Text("nobody"), too_few))
    ram.close()


def too_few(ram, cpu):
    """What a hook of one argument would be."""
    return cpu


def test_a_stub_for_later_is_the_same_place():
    """Where the definition cannot be imported, its name and its number of arguments stand for it."""
    shrink = sys.modules["allocator.page_alloc"].alloc_slow
    assert (
        shrink.text
        == sys.modules["allocator.direct_reclaim"].alloc_slow.entry.text
        == later("alloc_slow", 3).text
    )
