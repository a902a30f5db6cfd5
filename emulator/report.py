"""Tell people what a comparison found: the table beside the talk's figures, and violations as proofs.

Everything is made once as rich text; `report_text` gives it plain (files, pipes, tests), `print_report` in colour on a terminal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from emulator import talk
from emulator.result import Comparison

LABEL = 20
VALUE = 14
DELTA = 12
GOOD, BAD, QUIET = "green", "bold red", "dim"
SITES_SHOWN = 3


def report_text(comparison: Comparison) -> str:
    """Return the whole screen as plain text."""
    return render(comparison).plain


def print_report(comparison: Comparison, stream: TextIO) -> None:
    """Print the screen: coloured if `stream` is a terminal, plain otherwise."""
    console = Console(file=stream, highlight=False, soft_wrap=True)
    console.print(render(comparison), end="")


def render(comparison: Comparison) -> Text:
    """Return the whole screen: what ran, the table, what was checked, violations, where to look further."""
    text = Text()
    _heading(text, comparison)
    text.append("\n")
    _table(text, comparison)
    _shot_down_by(text, comparison)
    _checked(text, comparison)
    for run in comparison.runs:
        for violation in run.violations:
            text.append("\n")
            text.append_text(_violation({"design": run.design, "seed": run.seed, **violation}, violation.get("events", ())))
    if comparison.folder:
        text.append(f"\nmore: luf report {comparison.folder}   ·   interrupts, vmstat and perf-stat files in the folder\n", QUIET)
    return text


# -- the first three lines ----------------------------------------------------------------------------------------------------------


def _heading(text: Text, comparison: Comparison) -> None:
    run = comparison.runs[0]
    cores = comparison.host.get("cores")
    leases = {0: "no leases (ungated)", 1: "1 lease (controlled: repeats exactly)"}.get(run.leases, f"{run.leases} leases")
    where = f" on {cores} core{'s' * (cores != 1)}" if cores else ""
    engine = f", {run.engine_text}" if run.engine_text else ""
    oracle = "oracle on" if run.check == "full" else "oracle off"
    rows = (
        ("machine", run.machine, run.machine_text or f"{run.cpus} CPUs", run.scale_text or f"scale 1/{run.scale:g}"),
        ("workload", run.workload, run.workload_text or f"{run.tokens} tokens", ""),
        ("host", f"{leases}{where}{engine}, seed {run.seed}, {oracle}", "", comparison.folder and comparison.folder.rstrip("/") + "/"),
    )
    width = max(len(run.machine), len(run.workload)) + 3
    lines = [(label, f"{name:<{width}}{what}" if what else name, right) for label, name, what, right in rows]
    edge = max(len(middle) for _, middle, _ in lines) + 6
    for label, middle, right in lines:
        text.append(f"{label:<10}", QUIET)
        text.append(f"{middle:<{edge}}{right}".rstrip() + "\n")


# -- the table ----------------------------------------------------------------------------------------------------------------------


def _table(text: Text, comparison: Comparison) -> None:
    base, others = comparison.runs[0], comparison.runs[1:]
    names = [run.design for run in comparison.runs]
    with_talk = base.design == "linux" and "luf" in names
    text.append(f"{'':<{LABEL}}{base.design:>{VALUE}}" + "".join(f"{run.design:>{VALUE}}{'delta':>{DELTA}}" for run in others), "bold")
    text.append(f"{'the talk':>{DELTA}}\n" if with_talk else "\n", "bold")
    for label, attribute, pair in (
        ("TLB shootdowns", "tlb_shootdowns", talk.TLB_SHOOTDOWNS),
        ("dTLB-load-misses", "dtlb_load_misses", talk.DTLB_LOAD_MISSES),
        ("dTLB-store-misses", "dtlb_store_misses", talk.DTLB_STORE_MISSES),
        ("iTLB-load-misses", "itlb_load_misses", talk.ITLB_LOAD_MISSES),
    ):
        values = [int(getattr(run, attribute)) for run in comparison.runs]
        _row(text, label, [f"{value:,}" for value in values], values, percent(talk.change(pair)) if with_talk else "")
        if attribute == "tlb_shootdowns":
            messages = [run.ipi.messages for run in comparison.runs]
            _row(text, "  sent as messages", [f"{value:,}" for value in messages], messages, "", QUIET)
    processes = {len(run.runtime_ns) for run in comparison.runs}
    count = processes.pop() if len(processes) == 1 else 0
    means = [run.runtime_mean_ns for run in comparison.runs]
    label = f"runtime, mean of {count}" if count > 1 else "runtime"
    _row(text, label, [seconds(mean / 1e9) for mean in means], means, percent(talk.runtime_change()) if with_talk else "")
    shares = [run.unmapped_read_only for run in comparison.runs]
    talk_share = f"{talk.READ_ONLY_SHARE * 100:.0f} %" if with_talk else ""
    _row(text, "unmapped read-only", [share_text(share) for share in shares], None, talk_share)
    _row(text, "emulated in", [seconds(run.host_seconds) for run in comparison.runs], None, "", QUIET)


def _row(text: Text, label: str, shown: Sequence[str], values: Sequence[float] | None, of_the_talk: str, style: str = "") -> None:
    line = Text(f"{label:<{LABEL}}{shown[0]:>{VALUE}}", style)
    for i, value in enumerate(shown[1:], 1):
        line.append(f"{value:>{VALUE}}")
        if values is None:
            line.append(" " * DELTA)
        elif values[0]:
            change = values[i] / values[0] - 1
            line.append(f"{percent(change):>{DELTA}}", style or (GOOD if change < -0.0005 else BAD if change > 0.0005 else ""))
        else:
            line.append(f"{'-':>{DELTA}}")
    line.append(f"{of_the_talk:>{DELTA}}" if of_the_talk else "")
    line.rstrip()
    text.append_text(line).append("\n")


def _shot_down_by(text: Text, comparison: Comparison) -> None:
    width = max(len(run.design) for run in comparison.runs)
    sites = [sites_text(run.flush_sites) for run in comparison.runs]
    edge = max(map(len, sites))
    for i, (run, shown) in enumerate(zip(comparison.runs, sites)):
        said = talk.SHOT_DOWN_BY.get(run.design, "")
        line = f"{'shot down by' if i == 0 else '':<{LABEL}}{run.design:<{width}}  {shown:<{edge}}"
        text.append(line.rstrip() if not said else line)
        text.append(f"   the talk: {said}" if said else "", QUIET)
        text.append("\n")


def _checked(text: Text, comparison: Comparison) -> None:
    text.append(f"{'coherence':<{LABEL}}")
    for i, run in enumerate(comparison.runs):
        text.append("   " if i else "")
        found = len(run.violations)
        if found:
            text.append(f"{run.design}: {found} violation{'s' * (found > 1)}", BAD)
        elif run.check != "full":
            text.append(f"{run.design}: not checked", BAD)
        else:
            text.append(f"{run.design}: no violation", GOOD)
    text.append(f"\n{'accounted for':<{LABEL}}")
    wrong = [(run.design, name, pair) for run in comparison.runs for name, pair in run.unaccounted.items()]
    if wrong:
        text.append("; ".join(f"{design}: {name}: expected {pair[0]:,}, found {pair[1]:,}" for design, name, pair in wrong) + "\n", BAD)
        return
    names = list(dict.fromkeys(name for run in comparison.runs for name in run.accounted))
    text.append("every " + listed(names) + "\n" if names else "nothing was counted\n", GOOD if names else BAD)


# -- words and numbers --------------------------------------------------------------------------------------------------------------


def percent(change: float) -> str:
    """Return a change as `-96.7 %`, `+3.0 %`; `0.0 %` has no sign."""
    shown = f"{change * 100:+,.1f}"
    return ("0.0" if shown in ("+0.0", "-0.0") else shown) + " %"


def share_text(share: float | None) -> str:
    """Return a share as `99.1 %`, `-` if there is none."""
    return "-" if share is None else f"{share * 100:.1f} %"


def seconds(value: float) -> str:
    """Return a duration with about four digits and its unit: `1.871 s`, `33.21 ms`, `118 s`."""
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "us")):
        if value * factor >= 1 or unit == "us":
            break
    shown = value * factor
    digits = 0 if shown >= 1000 else 1 if shown >= 100 else 2 if shown >= 10 else 3
    return f"{shown:,.{digits}f} {unit}" if value else "0 s"


def listed(names: Sequence[str]) -> str:
    """Return `a`, `a and b`, `a, b and c`."""
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def sites_text(sites: Mapping[str, int]) -> str:
    """Return where shootdowns were decided, largest first: `kswapd 61 %, direct reclaim 36 %, 2 more 3 %`."""
    total = sum(sites.values())
    if not total:
        return "nobody"
    ranked = sorted(((count, site) for site, count in sites.items() if count), key=lambda pair: (-pair[0], pair[1]))
    shown = [f"{site} {_whole_percent(count, total)}" for count, site in ranked[:SITES_SHOWN]]
    rest = ranked[SITES_SHOWN:]
    if rest:
        shown.append(f"{len(rest)} more {_whole_percent(sum(count for count, _ in rest), total)}")
    return ", ".join(shown)


def _whole_percent(count: int, total: int) -> str:
    share = count * 100 / total
    return f"{share:.0f} %" if share >= 0.5 else "< 1 %"


# -- violations ---------------------------------------------------------------------------------------------------------------------

_CLAIMS = {
    "reuse": "{actor} {did} memory that now belongs to somebody else",
    "stale read": "{actor} read an older version than was published",
    "lost write": "{actor} wrote to memory that is no longer the page",
    "access after completion": "{actor} used a translation after the call that removed it had returned",
}
_DID = {"load": "read", "fetch": "executed", "store": "overwrote"}
_VERB = {"load": "loaded", "fetch": "fetched from", "store": "stored to"}


def violation_text(violation: Mapping[str, Any], events: Sequence[Mapping[str, Any]] = ()) -> str:
    """Return a violation as a proof: what was seen, the events that led to it (let), what was due (then), what was not (however).

    `violation`: kind, cpu, t_ns; if known access (load, store, fetch), address, expected, found, frame, filled_ns, design, seed,
    should, however, again. `events`: t_ns, actor, what, in any order.
    """
    return _violation(violation, events).plain


def _violation(violation: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> Text:
    kind = str(violation.get("kind", "violation"))
    access = str(violation.get("access", "load"))
    actor = f"cpu{violation['cpu']}" if "cpu" in violation else "a CPU"
    claim = violation.get("claim") or _CLAIMS.get(kind, "{actor}: " + kind).format(actor=actor, did=_DID.get(access, "used"))
    about = [f"design {violation['design']}"] if "design" in violation else []
    about += [f"seed {violation['seed']}"] if "seed" in violation else []
    about += [f"t = {microseconds(violation['t_ns'])}"] if "t_ns" in violation else []
    text = Text("VIOLATION  ", BAD)
    head = f"{kind}: {claim}"
    text.append(f"{head:<88}  ".rstrip() if not about else f"{head:<88}  " + ", ".join(about), "bold").append("\n")
    text.append(f"  {_seen(violation, actor, access)}\n")
    for i, event in enumerate(sorted(events, key=lambda event: int(event.get("t_ns", 0)))):
        text.append("  Let    " if i == 0 else "         ")
        text.append(f"{event.get('actor', '?')} {event.get('what', '')} at {microseconds(event.get('t_ns', 0))}\n")
    should = violation.get("should") or _should(violation, actor)
    if should:
        text.append(f"  Then   {should}\n")
    if violation.get("however"):
        text.append(f"  However {violation['however']}\n")
    if violation.get("again"):
        text.append(f"  again: {violation['again']}\n", QUIET)
    return text


def _seen(violation: Mapping[str, Any], actor: str, access: str) -> str:
    words = [actor, _VERB.get(access, access)]
    if "address" in violation:
        words.append(address(violation["address"]))
    if "expected" in violation:
        words.append(f"({violation['expected']})")
    if "filled_ns" in violation:
        words.append(f"through a TLB entry filled at {microseconds(violation['filled_ns'])}")
    text = " ".join(words)
    if "found" in violation:
        frame = f"frame {violation['frame']}" if "frame" in violation else "the frame"
        text += f"; {frame} now holds {violation['found']}"
    return text


def _should(violation: Mapping[str, Any], actor: str) -> str:
    if violation.get("kind") == "reuse":
        frame = f"frame {violation['frame']}" if "frame" in violation else "the frame"
        return f"{actor} should have been flushed before {frame} was used again."
    return ""


def microseconds(t_ns: int) -> str:
    """Return a point of virtual time: `1,204.7 us`."""
    return f"{int(t_ns) / 1000:,.1f} us"


def address(value: int | str) -> str:
    """Return an address in groups of four digits: 0x7f3a_0004_2000."""
    return value if isinstance(value, str) else f"0x{value:_x}"
