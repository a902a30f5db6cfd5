"""The arguments of `luf stress`. Imports nothing heavy."""

from __future__ import annotations

import argparse

from emulator.cli_parts import OUT, SEED, Parser, add_number, at_least, command

STRESS = """\
Look for runs in which a design fails: thousands of short ones, on all host cores. Workloads are the litmus
tests (luf litmus --list) and small runs of the generators; how CPUs take turns, and knobs of the machine, are
drawn from --seed, more often what has found something new. The oracle, the audit and what each test forbids
judge every run. Each distinct finding is repeated, and looked for under vanilla Linux with the same job:
what Linux shows, too, is not put down to the design. In the end stands each finding with its proof and the
command that repeats it exactly, and shrunk to a few calls that `luf replay` repeats; or what was exercised,
how often, and what was not (docs/stress.md)."""

STRESS_EXAMPLES = """\
examples:
  luf stress luf                           a minute of it
  luf stress luf latr epoch --minutes 5    five minutes each
  luf stress all --minutes 60              every design of the shelf that is not wrong on purpose
  luf stress my_file.py:MyDesign --first   until something is found
  luf stress luf --seed 2                  other runs; the same seed draws the same ones
  luf stress luf --only 'munmap*'          only workloads that match
  luf stress none:what=user --seconds 10   what it says of a design that leaves flushes out

"""


def add_stress(commands: argparse._SubParsersAction[Parser]) -> None:
    stress = command(
        commands, "stress", "look for runs in which a design fails, as long as you like", STRESS_EXAMPLES
    )
    stress.description = STRESS
    stress.add_argument(
        "designs", nargs="+", metavar="DESIGN", help="names (luf list) or FILE.py:CLASS; or all"
    )
    how = stress.add_argument_group("how long, and with what")
    time = how.add_mutually_exclusive_group()
    seconds = at_least(0, 10**7, float)
    time.add_argument(
        "--seconds", metavar="S", type=seconds, default=60.0, help="of host time for each design; default 60"
    )
    time.add_argument("--minutes", metavar="M", type=seconds, help="the same in minutes")
    how.add_argument("--first", action="store_true", help="stop at the first finding of a design")
    how.add_argument("--no-shrink", action="store_true", help="leave findings as large as they were found")
    add_number(how, "--seed", 0, 2**31, f"of all that is drawn; default {SEED}", default=SEED)
    add_number(how, "--jobs", 1, 256, "workers, one run at a time each; default: this host's cores")
    how.add_argument(
        "--only", metavar="PATTERN", help="only workloads that match, such as 'munmap*' or churn"
    )
    how.add_argument(
        "--without",
        choices=["litmus", "points", "states"],
        action="append",
        default=[],
        metavar="PART",
        help="leave a part out, to see what it is worth: litmus (tests), points (preemption inside the "
        "kernel), states (frames and pages before they change); may be repeated",
    )
    how.add_argument(
        "--check", choices=["full", "bounds"], default="full", help="as for luf run; default full"
    )
    left = stress.add_argument_group("what is left")
    left.add_argument(
        "--out",
        metavar="DIR",
        default=OUT,
        help=f"where the folder with findings.json goes, as DIR/NNNN-stress; default {OUT}",
    )
    left.add_argument(
        "--json", metavar="FILE", help="also write findings.json there; - writes it instead of the report"
    )
