"""A finding of LUF's debug feature as the text of a kernel warning. Imports nothing heavy, so that reports of
old runs come at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DONE_ROW = 8  # CPUs in a line of the dump
ABOUT_TO = {
    "KMAP": "kmap: frame {} is about to be written to",
    "MKWR": "mkwrite: a PTE of frame {} becomes writable",
    "FREE": "free: frame {} is freed with a key",
}


def finding_lines(finding: Mapping[str, Any]) -> list[str]:
    """Return a finding as lines, the first one its head: what, where, whose record, who lags, and the
    done-numbers of all CPUs.
    """
    lag = [f"cpu{cpu}" for cpu in finding["lagging"]]
    late, have = ", ".join(lag), "has" if len(lag) == 1 else "have"
    whose = "its record" if finding["record"] == "page" else f"the record of {finding['record_of']}"
    lines = [f"{ABOUT_TO[finding['site'][:4]].format(finding['frame'])}, and {late} {have} not done {whose}"]
    lines.append(
        f"WARNING: CPU: {finding['cpu']} ({finding['task']}) at {finding['function']}{_target(finding)}"
    )
    if finding["record"] == "page":
        freed = (
            f"freed by cpu{finding['freed_by']} at {finding['freed_ns'] / 1000:,.1f} us "
            f"with key {finding['key']}"
        )
        lines.append(
            f"  frame {finding['frame']} held {finding['held']}; {freed}, request {finding['request']:,}"
        )
    else:
        lines.append(
            f"  the record of {finding['record_of']}: unmapped lazily before this began, "
            f"request {finding['request']:,}"
        )
    lines.append(f"  done-numbers, ! where older than {finding['request']:,} and named by the record:")
    cells = [
        f"cpu{cpu} {done:,}{'!' if cpu in finding['lagging'] else ''}"
        for cpu, done in enumerate(finding["done"])
    ]
    lines += [f"    {'  '.join(cells[i : i + DONE_ROW])}" for i in range(0, len(cells), DONE_ROW)]
    return lines


def _target(finding: Mapping[str, Any]) -> str:
    if "address" in finding:
        return f", for mm {finding['mm']} at 0x{finding['address']:_x}"
    return f", for {finding['page']}" if "page" in finding else ""
