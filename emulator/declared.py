"""Show what is declared as data, for `luf list`: name -> text, one line or several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def row_kinds() -> Mapping[str, str]:
    """The kinds of rows of a workload: what each does, what its fields are, which calls make it."""
    from cpus.abi.row_kinds import ROW_KINDS

    found = {}
    for kind in ROW_KINDS.values():
        lines = [kind.does, "; ".join(f"{name}: {what.what}" for name, what in kind.fields.items())]
        lines.append("call: " + ", ".join(kind.calls) if kind.calls else "")
        found[kind.name] = "\n".join(filter(None, lines))
    return found


def hooks() -> Mapping[str, str]:
    """The hooks of a design: when each is called and with what, locks held, and what its result means."""
    from allocator.hooks import HOOKS, IGNORED

    found = {}
    for name, hook in HOOKS.items():
        lines = [hook.when, "; ".join(f"{argument}: {what}" for argument, what in hook.asks)]
        if hook.held:
            lines.append("held: " + ", ".join(map(_lock_text, hook.held)))
        if hook.waits:
            lines.append("may wait: no spin lock is held, and interrupts are on")
        if hook.result != IGNORED:
            lines.append("result: " + hook.result)
        found[name] = "\n".join(filter(None, lines))
    return found


def _lock_text(rule: Any) -> str:
    """Say which lock a rule asks for: `zone_lock of zone`, `some page_lock`."""
    if hasattr(rule, "rules"):
        return " or ".join(map(_lock_text, rule.rules))
    text = f"{rule.lock} of {rule.at}" if rule.at != "any" else f"some {rule.lock}"
    return text + " (shared is enough)" * rule.shared


def sysctls() -> Mapping[str, str]:
    """The kernel's knobs: what each does, Linux's name, range, and what kernels read of it."""
    from allocator.sysctl import SYSCTLS

    found = {}
    for name, one in SYSCTLS.items():
        if one.least is False:
            values = "true or false"
        else:
            values = f"from {one.least:,} to {one.most:,}" + f", {one.unit}" * bool(one.unit)
        default = "" if one.default is None else f"; default {str(one.default).lower()}"
        read = f"; kernels read ram.{one.constant}" if one.constant else ""
        found[name] = f"{one.does}\n{one.linux}: {values}{default}{read}"
    return found
