"""A finding of LUF's debug feature as the text of a kernel warning. Imports nothing heavy, so that reports of old runs come at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DONE_ROW = 8  # CPUs in a line of the dump


def finding_lines(finding: Mapping[str, Any]) -> list[str]:
    """Return a finding as lines, the first one its head: what, where, whose record, who lags, and the done-numbers of all CPUs."""
    how = "kmap" if finding["site"].startswith("KMAP") else "mkwrite" if finding["site"].startswith("MKWRITE") else "free"
    late = ", ".join(f"cpu{cpu}" for cpu in finding["lagging"])
    what = f"frame {finding['frame']}"
    lines = [f"{how} of {what} before {late} {'is' if len(finding['lagging']) == 1 else 'are'} done"]
    lines.append(f"WARNING: CPU: {finding['cpu']} ({finding['task']}) at {finding['function']}")
    if "address" in finding:
        lines.append(f"  for mm {finding['mm']} at 0x{finding['address']:_x}")
    elif "page" in finding:
        lines.append(f"  for {finding['page']}")
    if finding["record"] == "page":
        freed = f"freed by cpu{finding['freed_by']} at {finding['freed_ns'] / 1000:,.1f} us with key {finding['key']}"
        lines.append(f"  {what} held {finding['held']}; {freed}, request {finding['request']:,}")
    else:
        lines.append(f"  {finding['record_of']} has a record of pages unmapped before this began, request {finding['request']:,}")
    lines.append(f"  {late} {'has' if len(finding['lagging']) == 1 else 'have'} not done that: its done-number is older")
    cells = [f"cpu{cpu} {done:,}{'!' if cpu in finding['lagging'] else ''}" for cpu, done in enumerate(finding["done"])]
    for i in range(0, len(cells), DONE_ROW):
        lines.append(f"  {'done:' if i == 0 else '     '} {'  '.join(cells[i : i + DONE_ROW])}")
    return lines
