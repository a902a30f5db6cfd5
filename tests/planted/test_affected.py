"""What must be compiled anew when a function changes: all that holds its code, and nothing that calls it
through its address.
"""

from __future__ import annotations

import pytest

from tests.planted.affected import affected_modules
from tests.planted.bugs import ROOT, all_bugs

SOURCES = {
    "cpus/low.py": "LIMIT = 3\n\n\n@kernel\ndef low(x):\n    return x + LIMIT\n",
    "cpus/other.py": "@kernel\ndef other(x):\n    return x\n",
    "allocator/middle.py": (
        "from cpus.low import low as lowest\n\nHALF = 2\n\n\n"
        "@kernel\ndef middle(x):\n    return lowest(x) // HALF\n"
    ),
    "allocator/large.py": (
        "from allocator.middle import middle\nfrom cpus.other import other\n\n\n"
        "@apart\ndef large(ram, x):\n    return middle(x)\n\n\n"
        "@kernel\ndef small(x):\n    return other(x)\n"
    ),
    "designs/mine.py": (
        "from allocator.large import large, small\n\n\n"
        '@hook("tick")\ndef mine(ram, cpu, a, b, c, d):\n    return large(ram, small(a))\n'
    ),
}


@pytest.fixture
def root(tmp_path):
    for file, text in SOURCES.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    "file, old, new, affected",
    [
        (
            "cpus/low.py",
            "x + LIMIT",
            "x - LIMIT",
            {"cpus/low.py", "allocator/middle.py", "allocator/large.py"},
        ),
        (
            "cpus/low.py",
            "LIMIT = 3",
            "LIMIT = 4",
            {"cpus/low.py", "allocator/middle.py", "allocator/large.py"},
        ),
        ("allocator/large.py", "return middle(x)", "return middle(x) + 1", {"allocator/large.py"}),
        ("cpus/other.py", "return x", "return 0", {"cpus/other.py", "allocator/large.py", "designs/mine.py"}),
        (
            "allocator/middle.py",
            "import low as",
            "import high as",
            {"allocator/middle.py", "allocator/large.py"},
        ),
        ("cpus/other.py", "return x", '"""The same."""\n    return x', set()),
    ],
    ids=["callers", "constant", "through-its-address", "hook", "import", "docstring"],
)
def test_what_holds_changed_code_is_affected(root, file, old, new, affected):
    """low <- middle <- large (apart) <- mine: nobody above `large` has its code; `small` is compiled into
    `mine`.
    """
    assert old in SOURCES[file]
    assert affected_modules(root, {file: SOURCES[file].replace(old, new)}) == affected


def test_a_flush_of_one_page_reaches_far_and_a_copy_on_write_does_not():
    """On the sources as they are: what inlines the TLB, and not page faults, which call it."""
    bugs = all_bugs()
    far = affected_modules(ROOT, bugs["invlpg-forgets-the-second-level"].sources())
    assert {"cpus/tlb.py", "allocator/tlb_flush.py", "designs/held.py"} <= far
    assert "allocator/memory.py" not in far
    assert affected_modules(ROOT, bugs["cow-does-not-flush"].sources()) == {"allocator/copy_on_write.py"}
