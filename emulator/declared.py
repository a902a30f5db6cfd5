"""Show what is declared as data, for `luf list`: name -> text, one line or several."""

from __future__ import annotations

from collections.abc import Mapping


def row_kinds() -> Mapping[str, str]:
    """The kinds of rows of a workload: what each does, what its fields are, which calls make it."""
    from cpus.abi.row_kinds import ROW_KINDS

    found = {}
    for kind in ROW_KINDS.values():
        lines = [kind.does, "; ".join(f"{name}: {what.what}" for name, what in kind.fields.items())]
        lines.append("call: " + ", ".join(kind.calls) if kind.calls else "")
        found[kind.name] = "\n".join(filter(None, lines))
    return found
