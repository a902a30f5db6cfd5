"""The arguments of `luf sweep`. Imports nothing heavy."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from emulator.cli_parts import Parser, add_number, command

SWEEP_OUT = "sweep"
SWEEP = """\
Run every combination of what is varied, with several seeds each, and make one table and one picture of them.
What can be varied is each option of `luf run` by its name (memory, workload, machine, cpus, scale ...), the
design, and each key of the machine that --set takes. Each run that has ended is kept in DIR/journal.jsonl at
once; when the sweep is interrupted, or killed, the same command goes on where it was. Runs are carried side
by side, as many as this host has cores for (--leases of a run) and memory. A violation is a result like any
other, and makes the exit code 1; a run whose process was lost is begun again (docs/sweep.md)."""

SWEEP_EXAMPLES = """\
examples:
  luf sweep --vary memory=60%,80% --seeds 5        linux and luf in little and in more memory, 20 runs
  luf sweep --vary design=linux,luf,latr --vary cpus=8,16,32 --leases 1     controlled runs, side by side
  luf sweep --vary sysctl.numa_balancing=0,1 --machine guest-8cpu --out numa
  luf sweep plan.toml --out results                the same in a file: [base], [vary], seeds = 5
  luf sweep plan.toml --out results                once more, after Ctrl-C: goes on where it was
  luf sweep plan.toml --dask tcp://host:8786       the same on the workers of a Dask cluster

"""

CONVERGE_OUT = "converge"
CONVERGE = """\
Say whether figures of a machine and a workload hang on how they are emulated. It is a sweep over --slice and
--leases: shootdowns, CPUs per flush, share of direct reclaim, each kind of TLB miss and run time must lie
within 5 % of those of the finest slice, and of those of other leases. Whatever else is varied is judged at
each of its values. --seeds N compares medians: counts of a few thousand differ by 5 % by chance
(docs/time.md)."""

CONVERGE_EXAMPLES = """\
examples:
  luf converge --tokens 2                                  the talk's experiment, both designs, 16 runs
  luf converge --vary design=linux --set costs.disk_page=63    where CPUs are busy: a disk ten times as fast
  luf converge --vary slice=500000,50000,10000,2000 --vary leases=2 --seeds 3    your own slices
  luf converge --workload my_script.py:NAME --machine guest-8cpu     does *your* experiment hang on them?

exit code: 0 converged, 1 something hangs on the order of CPUs, or was not clean, 2 bad input, 3 the emulator
failed, 130 Ctrl-C."""

Adds = Callable[[argparse._ArgumentGroup], None]


def add_sweep(commands: argparse._SubParsersAction[Parser], what: Adds, how: Adds) -> None:
    """Add the command; `what` and `how` add the options of `luf run`."""
    sweep = command(
        commands, "sweep", "run every combination of what is varied; can be resumed", SWEEP_EXAMPLES
    )
    sweep.description = SWEEP
    _add_options(sweep, SWEEP_OUT, what, how)
    converge = command(commands, "converge", "say whether figures hang on how CPUs are ordered")
    converge.description, converge.epilog = CONVERGE, CONVERGE_EXAMPLES
    _add_options(converge, CONVERGE_OUT, what, how)


def _add_options(sweep: argparse.ArgumentParser, out: str, what: Adds, how: Adds) -> None:
    sweep.add_argument(
        "file", nargs="?", metavar="FILE.toml",
        help="what is varied, and options, as a file; options of the command line go before it",
    )  # fmt: skip
    sweep.add_argument(
        "--vary", metavar="KEY=VALUE,VALUE", action="append", default=[],
        help="design, an option of luf run, or a key of the machine, with the values that it shall have; may "
        "be repeated. A value with a comma needs a file. Default: design=linux,luf",
    )  # fmt: skip
    what(sweep.add_argument_group("what all runs have in common"))
    how(sweep.add_argument_group("how they are emulated"))
    where = sweep.add_argument_group("where they run, and what is left")
    where.add_argument(
        "--out", metavar="DIR", default=out,
        help=f"the sweep's folder: journal, tables, picture; default {out}",
    )  # fmt: skip
    where.add_argument(
        "--html", metavar="FILE", help="write a page to mail, too: figures, changes, picture and proofs"
    )  # fmt: skip
    add_number(
        where, "--jobs", 1, 1024, "runs at a time, at most; default: as many as cores and memory carry"
    )
    where.add_argument(
        "--dask", metavar="ADDRESS",
        help="run on the Dask cluster with this scheduler, such as tcp://HOST:8786 (docs/cluster.md)",
    )  # fmt: skip
