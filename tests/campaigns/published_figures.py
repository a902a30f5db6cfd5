"""What the neighbours' papers and patch series say that this emulator can speak to: each figure with its
place, and how ours is had.

`published` is a change against the base (-0.97: 97 % fewer), or an absolute figure in ns where there is no
base. Grades, as in the machine files: [measured] the source was read (mails, commit messages, abstracts);
[cited] quoted by others, or from general knowledge of it, the text itself was not at hand. No constant of the
emulator was chosen by any of these figures, but one: xeon6430-cxl.toml names the mail behind "touch and drop"
as an upper bound of its interrupt costs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from emulator.report.text import percent
from emulator.result import Result
from emulator.snapshots import Between

FLAT = 0.02  # changes smaller than this are none
TWICE = 2.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What one run of an experiment gave; `measured` is between its snapshots, if it has any. `work`:
    operations in there.
    """

    result: Result
    measured: tuple[Between, ...] = ()
    work: int = 1

    @property
    def ns(self) -> float:
        """Virtual time of one operation."""
        return sum(part.virtual_ns for part in self.measured) / self.work

    @property
    def interrupts(self) -> int:
        """Shootdowns in what is measured; of the whole run if nothing is."""
        return (
            sum(sum(part.interrupts) for part in self.measured)
            if self.measured
            else self.result.tlb_shootdowns
        )

    @property
    def rate(self) -> float:
        """Operations in a ns of virtual time."""
        return 1 / self.ns

    @property
    def per_migration(self) -> float:
        """Shootdowns for each page that was migrated."""
        return self.result.tlb_shootdowns / max(1, self.result.vmstat["pgmigrate_success"])

    @property
    def shootdown_ns(self) -> float:
        """Virtual time of one operation that goes to sending interrupts and to waiting for their acks."""
        return sum(part.counters["shootdown_wait_ns"] for part in self.measured) / self.work

    @property
    def runtime(self) -> float:
        return self.result.runtime_mean_ns


@dataclass(frozen=True, slots=True)
class Figure:
    """One published figure. `because` says why ours differs, where it does."""

    design: str
    base: str
    experiment: str
    what: str
    published: float
    source: str
    of: Callable[[Seen], float]
    because: str = ""


SHOOTDOWNS, RUNTIME, TIME, RATE, EACH = (
    "shootdowns",
    "runtime",
    "time",
    "operations a second",
    "shootdowns a migrated page",
)
V12 = (
    "cover of LUF RFC v12, 20250220052027.58847-1-byungchul@sk.com; the talk's raw "
    "data are the same [measured]"
)
TALK = "the talk's slides, TLB miss numbers [measured]"
V9 = "migrc v9, raw data in 20240417103332.GA8460@system.software.com [measured]"
V8 = "cover of migrc v8, nr_tlb_remote_flush_received, 20240219060407.25254-1-byungchul@sk.com [measured]"
BATCH = (
    "M. Gorman, 1433871118-15207-3-git-send-email-mgorman@suse.de, 48 CPUs: rates times elapsed [measured]"
)
MIGRATE = (
    "Huang Ying, 20230206063313.635011-9-ying.huang@intel.com: what became commit 7e12beb8ca2a [measured]"
)
RETEST = (
    "B. Park to Huang Ying, May 2024, thread of LUF v10: XSBench -t 14, 7e12beb8ca2a "
    "reverted and applied [measured]"
)
ASYNC = (
    "N. Amit, RFC v2 'Flush remote TLBs concurrently and async', "
    "20190531063645.4697-1-namit@vmware.com [measured]"
)
EUROSYS = (
    "Amit, Tai, Wei, EuroSys'20: 10-20 % for each of its two principal techniques, in a "
    "summary of the paper [cited]"
)
RIEL = "R. van Riel, v13 10/14, 20250223194943.3518952-11-riel@surriel.com, {} threads [measured]"
LATR_ABSTRACT = "LATR, ASPLOS'18, abstract [measured]"
LATR_TEXT = "LATR, ASPLOS'18, 16 cores on 2 sockets, in a summary of the paper [cited]"
ABIS_ABSTRACT = "ABIS, ATC'17, abstract: up to [measured]"
FPR_ABSTRACT = "FPR, arXiv:2409.10946, abstract: micro-benchmarks, up to [measured]"

UNMODELLED = (
    "Locks cost no virtual time here: what real threads lose to each other is missing on both "
    "sides, most of it in the base"
)
PART = (
    "the base flushes locally while the interrupts are under way, as Linux does since 5.13; that is "
    "half of the published gain"
)

FIGURES = (
    Figure("luf", "linux", "talk", SHOOTDOWNS, -0.972, V12, lambda s: s.interrupts),
    Figure("luf_v12", "linux", "talk", SHOOTDOWNS, -0.972, V12, lambda s: s.interrupts),
    Figure("luf", "linux", "talk", RUNTIME, -0.045, V12, lambda s: s.runtime,
           "the disk reads for most of a run, at the speed of the drive in the machine file, so little is "
           "left to save; screen.md has six seeds"),
    Figure("luf", "linux", "talk", "dTLB-load-misses", -0.490, TALK, lambda s: s.result.dtlb_load_misses,
           "a thread reads a page's 64 lines and goes on to the next, so most misses are first touches "
           "that no flush causes; the processor's counters see the kernel's own accesses too, which are "
           "not emulated (a guess, not tested)"),
    Figure("luf", "linux", "talk", "dTLB-store-misses", -0.752, TALK, lambda s: s.result.dtlb_store_misses,
           "few pages are written between two flushes; the kernel's stores, which the processor counts, "
           "are not emulated (a guess, not tested)"),
    Figure("luf", "linux", "talk", "iTLB-load-misses", -0.832, TALK, lambda s: s.result.itlb_load_misses,
           "the kernel's text, fetched again after each interrupt, is not emulated (a guess, not tested)"),
    Figure("luf", "linux", "xsbench", SHOOTDOWNS, -0.914, V9, lambda s: s.interrupts,
           "in this short run kswapd demotes what the threads wrote at the start, and one writable page in "
           "a batch flushes its CPUs. Linux maps a promoted page read-only until it is written, so the "
           "share of read-only pages among the demoted ones grows with each turnover of the fast node (0 % "
           "here; 24 % after 12 s on 4 CPUs, where luf saved nothing yet). The next row is a table that is "
           "all read-only. How much kswapd demotes in so short a run varies: with two leases the change "
           "was between -7 % and +33 %"),
    Figure("luf", "linux", "xsbench, table read-only", SHOOTDOWNS, -0.914, V9, lambda s: s.interrupts),
    Figure("luf_hold", "linux", "xsbench, table read-only", SHOOTDOWNS, -0.938, V8, lambda s: s.interrupts,
           "it also keeps back what reclaim frees, so allocations find the low watermark and flush "
           "(half of its interrupts), and CPUs that unmap meanwhile flush at once. Up to v8 it kept "
           "back migrated pages alone"),
    Figure("linux", "eager", "xsbench", EACH, -0.824, RETEST, lambda s: s.per_migration,
           "how many pages kswapd demotes in one batch depends on the interleaving; with two leases it "
           "was between -64 % and -78 %"),
    Figure("linux", "eager", "mapped readers", SHOOTDOWNS, -0.85, BATCH, lambda s: s.interrupts),
    Figure("linux", "eager", "mapped readers", RUNTIME, -0.258, BATCH, lambda s: s.runtime, UNMODELLED),
    Figure("linux", "eager", "move back and forth", SHOOTDOWNS, -0.991, MIGRATE, lambda s: s.interrupts),
    Figure("linux", "eager", "move back and forth", RATE, 2.917, MIGRATE, lambda s: s.rate),
    Figure("early_ack", "linux", "touch and drop, 2 threads", TIME, -0.357, ASYNC, lambda s: s.ns, PART),
    Figure("early_ack", "linux", "touch and drop, 4 threads", TIME, -0.319, ASYNC, lambda s: s.ns, PART),
    Figure("early_ack", "linux", "touch and drop, 4 threads", TIME, -0.15, EUROSYS, lambda s: s.ns),
    Figure("invlpgb", "linux", "tlb_flush2, 2 threads", RATE, 0.002, RIEL.format(2), lambda s: s.rate),
    Figure("invlpgb", "linux", "tlb_flush2, 8 threads", RATE, 0.943, RIEL.format(8), lambda s: s.rate),
    Figure("invlpgb", "linux", "tlb_flush2, 64 threads", RATE, 0.720, RIEL.format(64), lambda s: s.rate,
           UNMODELLED + ". The series itself names the LRU lock as what is left"),
    Figure("latr", "linux", "shared munmap", TIME, -0.708, LATR_ABSTRACT, lambda s: s.ns),
    Figure("abis", "linux", "talk", SHOOTDOWNS, -0.98, ABIS_ABSTRACT, lambda s: s.interrupts),
    Figure("fpr", "linux", "map and unmap, 1 page", RATE, 0.92, FPR_ABSTRACT, lambda s: s.rate,
           "here only system call and fault are left of a munmap of one page; the paper's "
           "loop reads from a device. "
           + UNMODELLED),
    Figure("fpr", "linux", "map and unmap, 16 pages", RATE, 0.92, FPR_ABSTRACT, lambda s: s.rate,
           "each of the 16 pages is faulted in and cleared either way; between 1 page and 16 the "
           "published figure is passed"),
    Figure("linux", "", "touch and drop, 1 thread", "ns each", 661, ASYNC, lambda s: s.ns),
    Figure("linux", "", "touch and drop, 4 threads", "ns each", 1571, ASYNC, lambda s: s.ns),
    Figure("linux", "", "shared munmap", "ns of shootdown", 6000, LATR_TEXT, lambda s: s.shootdown_ns,
           "an interrupt takes 2.7 us on the paper's machine, as another paper quotes it, and 0.8 us here"),
)  # fmt: skip

NOT_COMPARED = """\
Some published figures are not compared, as nothing here stands for their programs: Apache under LATR (+59.9 %
over Linux, +37.9 % over ABIS) and ABIS (up to 78 % faster), FPR's applications (up to 28 %), sysbench under
early acknowledgement, the pressure figures of RISC-V's batches. Nobody has published `epoch`, `none` and the
other ways of `luf:sync`.

"touch and drop" with 4 threads comes from the mail that xeon6430-cxl.toml gives as an upper bound of its
interrupt costs. Here the sum of fault, system call and shootdown is above that bound, so one of these [order]
costs is too high for that machine (a Haswell).
"""


def change(figure: Figure, base: Seen | None, seen: Seen) -> float | None:
    """Give our figure: a change against the base, or an absolute one; None if the base has none of it."""
    mine = figure.of(seen)
    if base is None:
        return mine
    before = figure.of(base)
    return mine / before - 1 if before else None


def agrees(published: float, ours: float) -> tuple[bool, bool, float]:
    """Say whether direction and size agree, and our figure in multiples of the published one. Two changes
    that are none agree in both.
    """
    if abs(published) < FLAT:
        flat = abs(ours) < FLAT
        return flat, flat, 1.0 if flat else float("inf")
    direction = ours * published > 0 and abs(ours) >= FLAT
    factor = ours / published
    return direction, direction and 1 / TWICE <= factor <= TWICE, factor


def _yes(true: bool) -> str:
    return "yes" if true else "no"


def figures_table(found: dict[tuple[str, str], Seen]) -> str:
    """Give the Markdown table of FIGURES and, below it, why some do not agree. `found`: (experiment, design)
    -> run.
    """
    head = (
        "design",
        "against",
        "experiment",
        "what",
        "published",
        "here",
        "direction",
        "within 2x",
        "source",
    )
    lines = ["| " + " | ".join(head) + " |", "|---|---|---|---|---:|---:|---|---|---|"]
    reasons = []
    for figure in FIGURES:
        base = found[figure.experiment, figure.base] if figure.base else None
        ours = change(figure, base, found[figure.experiment, figure.design])
        say = percent if figure.base else (lambda ns: f"{ns:,.0f}")
        if ours is None:
            cells = [say(figure.published), "-", "-", "-"]
        else:
            direction, size, factor = agrees(figure.published, ours)
            direct = _yes(direction) if figure.base else "-"
            cells = [
                say(figure.published),
                say(ours),
                direct,
                f"{_yes(size)} ({factor:.2f})".replace("-0.00", "0.00"),
            ]
            if not (direction and size):
                why = figure.because or "no reason is known"
                reasons.append(f"- `{figure.design}`, {figure.experiment}, {figure.what}: {why}.")
        first = [figure.design, figure.base or "-", figure.experiment, figure.what]
        lines.append("| " + " | ".join([*first, *cells, figure.source]) + " |")
    return (
        "\n".join(lines)
        + "\n\nWhere direction or size differs:\n\n"
        + "\n".join(reasons)
        + "\n\n"
        + NOT_COMPARED
    )
