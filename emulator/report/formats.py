"""Write a run in the text formats that kernel developers' scripts already read: /proc/interrupts,
/proc/vmstat, perf stat.

Stands for `arch/x86/kernel/irq.c: arch_show_interrupts`, `kernel/irq/proc.c: show_interrupts` and
`tools/perf/util/stat-display.c`. Left out: the rows of devices and timers, which nothing here raises.
"""

from __future__ import annotations

from emulator.result import Result

# Rows of /proc/interrupts: label, counter per CPU, text. As in Linux, CAL is function calls without the TLB
# ones.
PRECISION = 3


def interrupts_text(run: Result) -> str:
    """Return what /proc/interrupts would say: a header of CPU columns and the rows RES, CAL and TLB."""
    cpus = run.cpus
    calls = run.counters.get("irq_call", run.tlb_shootdowns_per_cpu)
    rows = (
        ("RES", run.counters.get("irq_resched", [0] * cpus), "Rescheduling interrupts"),
        (
            "CAL",
            [max(call - tlb, 0) for call, tlb in zip(calls, run.tlb_shootdowns_per_cpu)],
            "Function call interrupts",
        ),
        ("TLB", run.tlb_shootdowns_per_cpu, "TLB shootdowns"),
    )
    lines = [" " * (PRECISION + 8) + "".join(f"CPU{cpu:<8}" for cpu in range(cpus))]
    lines += [
        f"{label:>{PRECISION}}: " + "".join(f"{value:10} " for value in values) + f"  {text}"
        for label, values, text in rows
    ]
    return "\n".join(lines) + "\n"


def vmstat_text(run: Result) -> str:
    """Return `name value` lines as in /proc/vmstat."""
    return "".join(f"{name} {value}\n" for name, value in run.vmstat.items())


# perf's event names, and where a result keeps them; the misses come first because they are what the talk
# shows.
_EVENTS = (
    ("dTLB-load-misses", "dtlb_load_misses"),
    ("dTLB-store-misses", "dtlb_store_misses"),
    ("iTLB-load-misses", "itlb_load_misses"),
)
_COUNTED = (("dTLB-loads", "dtlb_loads"), ("dTLB-stores", "dtlb_stores"), ("iTLB-loads", "itlb_loads"))
_FAULTS = (("page-faults", "pgfault"), ("major-faults", "pgmajfault"))


def perf_stat_text(run: Result) -> str:
    """Return what `perf stat -a` would print; the elapsed time is virtual, and as perf says it where a
    violation has stopped the run.
    """
    events = [(event, int(getattr(run, name))) for event, name in _EVENTS]
    events += [(event, sum(run.counters[name])) for event, name in _COUNTED if name in run.counters]
    events += [(event, run.vmstat[name]) for event, name in _FAULTS if name in run.vmstat]
    lines = ["", " Performance counter stats for 'system wide':", ""]
    lines += [f"{value:>18,}      {event}" for event, value in events]
    elapsed = "<not counted>" if run.stopped else f"{max(run.runtime_ns, default=0) / 1e9:.9f}"
    lines += ["", f"{elapsed:>18} seconds time elapsed", "", ""]
    return "\n".join(lines)
