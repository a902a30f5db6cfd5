"""Compare the emulator with what papers and patch series have published, and say what three designs' figures
rest on.

    python -m tests.campaigns.published [--cpus 64] [--tokens 8] [--scale 1024] [--page docs/results.md]

Writes its sections of docs/results.md anew and leaves the rest of the page as it is; `python -m
tests.campaigns.results` writes them too. The figures are in published_figures.py, the micro-benchmarks in
published_setups.py. Micro-benchmarks and XSBench run in controlled mode, so their figures repeat to the last
ns; the talk's workload runs as users run it.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from designs.luf_v12.luf_v12 import LufV12
from designs.luf_v12.triggers import v12_release
from emulator.experiment import run_design
from emulator.machine import load_machine
from emulator.output_file import write_atomically
from emulator.published import DirtyTree, check_page, filled
from emulator.report.text import seconds, sites_text
from emulator.result import Result
from emulator.snapshots import run_script
from tests.campaigns.published_figures import FIGURES, Seen, figures_table
from tests.campaigns.published_setups import (
    map_and_unmap,
    mapped_readers,
    move_back_and_forth,
    shared_munmap,
    tlb_flush2,
    touch_and_drop,
)
from workloads.script import Script

PAGE = Path(__file__).parents[2] / "docs" / "results.md"
TITLES = ("Published figures", "What three figures rest on", "One shootdown for every page")
TIMES, MOVES, PIECES, FLUSH_PAGES = 200, 4, 40, 16
EAGER_SCALE, EAGER_TOKENS = 1024, 1
# The scanner of NUMA balancing begins after a second, and goes through 256 MB at a time: these runs are over
# by then.
SCANNER = {
    "sysctl.numa_balancing_scan_delay_ms": 0,
    "sysctl.numa_balancing_scan_period_min_ms": 1,
    "sysctl.numa_balancing_scan_size_mb": 4096,
}
SPARSE = {"costs.disk_latency": 0, "costs.disk_page": 0}  # holes are filled with zeros, not read


class WithoutRelease(LufV12):
    """luf_v12:records=required but for its hook in finish_task_switch"""

    name = "luf_v12:records=required, no hook in finish_task_switch"
    hooks = tuple(hook for hook in LufV12.hooks if hook is not v12_release)

    def __init__(self) -> None:
        super().__init__(records="required")
        self.name = type(self).name


@dataclass(frozen=True, slots=True)
class Experiment:
    """One experiment: what it is in a few words, and how to run a design in it."""

    text: str
    run: Callable[[str, argparse.Namespace], Seen]


def _micro(
    machine: str, cpus: int, script: Callable[[], Script], work: int, parts: int = 0, **overrides: Any
) -> Callable[..., Seen]:
    """Give the runner of a script in controlled mode. `parts`: number of pairs of snapshots, 0 for one pair
    without a number.
    """

    def run(name: str, options: argparse.Namespace) -> Seen:
        made = script()
        small = load_machine(machine, scale=1024, cpus=cpus, overrides=overrides)
        result, noted = run_script(name, small, made, leases=1, seed=options.seed)
        pairs = [(f"begin {i}", f"end {i}") for i in range(parts)] or [("begin", "end")]
        return Seen(result, tuple(noted.between(*pair) for pair in pairs), work)

    return run


def _readers(name: str, options: argparse.Namespace) -> Seen:
    """Run the mapped readers: whole run, as every reader counts."""
    machine = load_machine("two-socket", scale=2048, cpus=48, overrides=SPARSE)
    result, _ = run_script(
        name, machine, mapped_readers(machine.cpus, sum(machine.pages)), leases=1, seed=options.seed
    )
    return Seen(result)


def _workload(
    machine: str, workload: str, rounds: int, scale: float, **overrides: object
) -> Callable[..., Seen]:
    def run(name: str, options: argparse.Namespace) -> Seen:
        made = load_machine(machine, scale=scale, overrides=overrides)
        return Seen(run_design(name, made, workload, tokens=rounds, leases=1, seed=options.seed))

    return run


def talk(name: Any, options: argparse.Namespace) -> Seen:
    """Run the talk's experiment."""
    machine = load_machine("xeon6430-cxl", scale=options.scale, cpus=options.cpus)
    return Seen(
        run_design(
            name, machine, "llama3x15", tokens=options.tokens, leases=options.leases, seed=options.seed
        )
    )


def _drop(threads: int) -> Experiment:
    cpus = max(2, threads)
    run = _micro("xeon6430-cxl", cpus, lambda: touch_and_drop(threads, TIMES), TIMES)
    return Experiment("one thread touches a page and drops it with MADV_DONTNEED, the others spin", run)


def _flush2(threads: int) -> Experiment:
    run = _micro("xeon6430-cxl", threads, lambda: tlb_flush2(threads, FLUSH_PAGES), threads * FLUSH_PAGES)
    return Experiment("will-it-scale tlb_flush2: all threads touch, drop and read pages of their own", run)


def _unmap(pages: int) -> Experiment:
    run = _micro("two-socket", 16, lambda: map_and_unmap(16, pages, PIECES), 16 * PIECES)
    return Experiment("16 threads write fresh memory and unmap it", run)


EXPERIMENTS = {
    "talk": Experiment("llama3x15 on xeon6430-cxl, as above", talk),
    "xsbench": Experiment(
        "XSBench, 14 threads, on qemu-16 at 1/16, the scanner made quick",
        _workload("qemu-16", "xsbench:threads=14", 20, 16, **SCANNER),
    ),
    "xsbench, table read-only": Experiment(
        "the same with its table mapped read-only from a file, at 1/64",
        _workload("qemu-16", "xsbench:file=1", 2, 64),
    ),
    "mapped readers": Experiment(
        "48 processes each read a mapped file of their own, ten times the memory in all, two-socket", _readers
    ),
    "move back and forth": Experiment(
        "15 threads read memory that a 16th moves from node to node, two-socket",
        _micro("two-socket", 16, lambda: move_back_and_forth(16, 1024, MOVES), 1024 * MOVES),
    ),
    "shared munmap": Experiment(
        "munmap of one page that 16 threads have read, two-socket",
        _micro("two-socket", 16, lambda: shared_munmap(16, 20), 20, 20),
    ),
    **{f"touch and drop, {n} thread{'s' * (n > 1)}": _drop(n) for n in (1, 2, 4)},
    **{f"tlb_flush2, {n} threads": _flush2(n) for n in (2, 8, 64)},
    **{f"map and unmap, {n} page{'s' * (n > 1)}": _unmap(n) for n in (1, 16)},
}


class Runs:
    """Runs what is asked for once, and says how far it is."""

    def __init__(self, options: argparse.Namespace, talk_runs: dict[str, Result] | None = None) -> None:
        self.options, self.began = options, time.monotonic()
        self.found: dict[tuple[str, str], Seen] = {
            ("talk", name): Seen(result) for name, result in (talk_runs or {}).items()
        }

    def get(self, experiment: str, name: str, made: Any = None) -> Seen:
        """Give the run of a design in an experiment. Raises RuntimeError for one that is not clean: nothing
        can be compared with it.
        """
        if (experiment, name) not in self.found:
            seen = EXPERIMENTS[experiment].run(made or name, self.options)
            sys.stderr.write(
                f"{time.monotonic() - self.began:6.1f} s  {name} {experiment}: "
                f"{seen.interrupts:,} shootdowns\n"
            )
            if not seen.result.clean:
                raise RuntimeError(
                    f"{name} in {experiment!r} is not clean: "
                    f"{seen.result.violations or seen.result.unaccounted}"
                )
            self.found[experiment, name] = seen
        return self.found[experiment, name]


# --- the sections -------------------------------------------------------------------------------------------


PUBLISHED = """\
Written by `python -m tests.campaigns.published`. A change is against the design beside it. *within 2x*
compares our change with the published one: a saving of 86 % is 0.89 of one of 97 %, although it leaves five
times as much. [measured]: the source was read. [cited]: quoted by others, or general knowledge. Nothing here
was fitted; where the emulator differs, the list below the table says why.
"""


def published(runs: Runs) -> str:
    """Give the section that compares."""
    for figure in FIGURES:
        for name in filter(None, (figure.base, figure.design)):
            runs.get(figure.experiment, name)
    used = {figure.experiment for figure in FIGURES}
    texts = "\n".join(f"- *{name}*: {one.text}." for name, one in EXPERIMENTS.items() if name in used)
    return f"{PUBLISHED}\n{figures_table(runs.found)}\nThe experiments:\n\n{texts}\n"


REASONS = """\
**luf_v12:records=required.** Beyond what `records=posted` does, it flushes in `finish_task_switch`. Patch 19
calls luf_flush_mm(mm) each time a CPU leaves a kernel thread (or idleness) for a user task whose mm it had
borrowed. That CPU would compare tlb_gen by itself; the call flushes all CPUs that have a page of the mm
pending. As posted, the call finds flush_required unset and flushes nobody. These interrupts have the site
"other": {released:,} of {required:,}. Without this one hook there are {without:,} shootdowns.

**latr.** {timed_out:,} of {asked:,} CPUs were asked because frames had waited too long. {full:,} batches
found the ring full and were flushed by interrupts, as vanilla's are (sites kswapd, direct reclaim, demotion).
A record stands for a batch of up to 32 pages, so a ring of 64 records is full after 2,048 pages unless all
CPUs have swept; they sweep every 4 ms here, and every 1 ms in the paper. With the 256 records of the authors'
code {full_256:,} batches found it full, and the design saves {saved_256} instead of {saved_64}. Most of the
other CPUs ({taken:,}) were asked by allocations that found nothing but held frames.

**fpr.** It leaves reclaim and migration as they are, and only {user:,} of linux's {linux:,} shootdowns come
from munmap and its kin. It may put off the flush of a munmap of private anonymous memory that frees no page
table: of {kept:,} munmaps here, and {recycled:,} of their pages came back to their process.
"""

CASES = (
    "linux",
    "luf",
    "luf_v12",
    "luf_v12:records=required",
    WithoutRelease.name,
    "latr",
    "latr:ring=256",
    "fpr",
)


def reasons(runs: Runs) -> str:
    """Give the section that shows which counters three designs' figures rest on."""
    lines = ["| design | shootdowns | for | the design's own counters |", "|---|---:|---|---|"]
    for name in CASES:
        made = WithoutRelease() if name == WithoutRelease.name else None
        result = runs.get("talk", name, made).result
        counters = {key: value for key, value in result.design_stats.items() if key in SHOWN}
        lines.append(
            f"| {name} | {result.tlb_shootdowns:,} | {sites_text(result.flush_sites)} | {_words(counters)} |"
        )
    return "\n".join([_filled_in(runs), *lines, "", _lazy_munmap(runs)])


def _filled_in(runs: Runs) -> str:
    """Fill the figures into the paragraphs."""
    found = {name: runs.get("talk", name).result for name in CASES if name != WithoutRelease.name}
    linux, required, fpr = found["linux"], found["luf_v12:records=required"], found["fpr"].design_stats
    latr, wide = found["latr"], found["latr:ring=256"]
    return REASONS.format(
        released=required.flush_sites.get("other", 0), required=required.tlb_shootdowns,
        without=runs.get("talk", WithoutRelease.name).result.tlb_shootdowns,
        timed_out=latr.design_stats["asked"]["timed_out"], asked=sum(latr.design_stats["asked"].values()),
        taken=latr.design_stats["asked"]["taken"], full=latr.design_stats["ring_full"],
        full_256=wide.design_stats["ring_full"], saved_64=_saved(linux, latr), saved_256=_saved(linux, wide),
        linux=linux.tlb_shootdowns, user=linux.flush_sites.get("munmap/madvise", 0), kept=fpr["munmaps_kept"],
        recycled=fpr["pages_recycled"],
    )  # fmt: skip


def _saved(base: Result, other: Result) -> str:
    return f"{(1 - other.tlb_shootdowns / base.tlb_shootdowns) * 100:.0f} %"


def _lazy_munmap(runs: Runs) -> str:
    """Say how much of a munmap is its shootdown: the most that a lazy one can save, and what `latr` does."""
    munmap = runs.get("shared munmap", "linux")
    asked = munmap.interrupts / munmap.work
    sending = asked * load_machine("two-socket").costs.ipi_send
    lazy, waits = runs.get("shared munmap", "latr"), runs.get("shared munmap", "latr:munmap=wait")
    share = (munmap.shootdown_ns + sending) / munmap.ns * 100
    return f"""\
**What a lazy munmap saves.** munmap of a page that 16 threads share takes {munmap.ns:,.0f} ns. Sending
{asked:.0f} interrupts takes {sending:,.0f} ns of these and waiting {munmap.shootdown_ns:,.0f} ns, together
{share:.0f} %. `latr` only flushes its own CPU, which leaves {lazy.ns:,.0f} ns; its records cost no virtual
time. With `munmap=wait`, where nobody can use what has been unmapped, it takes {waits.ns:,.0f} ns.
"""


SHOWN = ("flushes", "rounds", "asked", "ring_full", "lazy_munmaps", "munmaps_kept", "pages_recycled")


def _words(counters: dict[str, Any]) -> str:
    """Write counters as words: nested ones behind their name, zeros too (that nothing timed out is the
    point).
    """
    parts = []
    for name, value in counters.items():
        inner = (
            ", ".join(f"{key} {count:,}" for key, count in value.items())
            if isinstance(value, dict)
            else f"{value:,}"
        )
        parts.append(f"{name}: {inner}")
    return "; ".join(parts).replace("_", " ") or "-"


EAGER = """\
`eager` needs some fifty interrupts for each of vanilla's, too many for the tables above. Here both run the
talk's workload with {tokens} token, at 1/{scale:.0f}.
"""


def eager(runs: Runs) -> str:
    """Give the section in which `eager` has the room that it needs."""
    options = argparse.Namespace(**{**vars(runs.options), "scale": EAGER_SCALE, "tokens": EAGER_TOKENS})
    small = Runs(options)
    lines = [
        "| design | shootdowns | a page unmapped | runtime | host | decided by |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for name in ("linux", "eager"):
        result = small.get("talk", name).result
        each = result.tlb_shootdowns / max(1, result.unmap.ro + result.unmap.rw)
        cells = [
            name,
            f"{result.tlb_shootdowns:,}",
            f"{each:.2f}",
            seconds(result.runtime_mean_ns / 1e9),
            seconds(result.host_seconds),
        ]
        lines.append("| " + " | ".join([*cells, sites_text(result.flush_sites)]) + " |")
    return EAGER.format(tokens=EAGER_TOKENS, scale=EAGER_SCALE) + "\n" + "\n".join(lines) + "\n"


def sections(options: argparse.Namespace, talk_runs: dict[str, Result] | None = None) -> dict[str, str]:
    """Give title -> text of all sections. `talk_runs`: runs of the talk's experiment that there are already,
    by design.
    """
    runs = Runs(options, talk_runs)
    return dict(zip(TITLES, (published(runs), reasons(runs), eager(runs)), strict=True))


def replaced(page: str, new: dict[str, str]) -> str:
    """Give the page with these sections in place of those of the same title; what is not there yet comes at
    the end.
    """
    for title, text in new.items():
        section = f"## {title}\n\n{text.rstrip()}\n"
        old = re.search(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
        if old:
            page = page[: old.start()] + section + ("\n" if old.end() < len(page) else "") + page[old.end() :]
        else:
            page = f"{page.rstrip()}\n\n{section}"
    return page


def main(arguments: list[str] | None = None) -> int:
    """Run what is compared and rewrite the sections."""
    parser = argparse.ArgumentParser(
        description="compare with published figures, and write sections of docs/results.md"
    )
    parser.add_argument("--cpus", type=int, default=64)
    parser.add_argument("--scale", type=float, help="of the talk's machine; default: its own")
    parser.add_argument("--tokens", type=int, default=8, help="of the talk's workload")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--leases", type=int, default=2)
    parser.add_argument(
        "--page", default=str(PAGE), help="default: docs/results.md, from committed sources only"
    )
    options = parser.parse_args(arguments)
    page = Path(options.page)
    try:
        check_page(page, "--page draft.md")
    except DirtyTree as dirty:
        sys.stderr.write(f"published: {dirty}\n")
        return 2
    previous = page.read_text(encoding="utf-8") if page.is_file() else ""
    write_atomically(page, filled(replaced(previous, sections(options))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
