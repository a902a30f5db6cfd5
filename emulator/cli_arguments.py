"""The command line of `luf`: its options, what they mean for a kernel developer, and examples. Imports
nothing heavy: --help is instant.
"""

from __future__ import annotations

import argparse
import sys

from cpus.abi.numbers import CPUS_MAX, LEASES_MAX
from emulator.cli_parts import EXIT_CODES, OUT, SEED, Parser, Version, at_least, percentage
from emulator.cli_parts import add_number as _add_number
from emulator.cli_parts import add_set as _add_set
from emulator.cli_parts import command as _command
from emulator.cli_replay import add_replay
from emulator.cli_stress import add_stress
from emulator.cli_sweep import add_sweep
from emulator.order import SLICE_NS

MACHINE = "xeon6430-cxl"
WORKLOAD = "llama3x15"
TOKENS = 8
GOLDEN_REPEAT = 3
SEEDS_MAX, SEED_MAX = 100, 2**62  # those that follow it fit into 63 bits, too
KERNEL = "6.12"
LISTED = ("machines", "workloads", "designs")  # of what ships with luf
DECLARED = ("rows", "hooks", "sysctls")  # as data (emulator/declared.py)
OUTPUTS = ("out", "json", "picture", "table", "html", "trace", "plot", "doc")
PLACES = (*OUTPUTS, "folder", "data", "again", "file")

DESCRIPTION = """\
Race and break TLB-flush designs. Every emulated CPU is a process with its own TLB; page tables and page
frames live in shared memory; shootdowns are real messages; memory pressure comes from real concurrent
allocation; an oracle judges every access."""

EXAMPLES = """\
examples:
  luf compare                              the talk's experiment: Linux against LUF, beside the talk's figures
  luf compare linux luf none               three designs; the first is what the others are compared with
  luf compare --cpus 16 --tokens 2         smaller and quicker
  luf compare --seeds 6                    six runs of each: is it different, and by how much?
  luf compare linux linux --seeds 6        what chance does: a design beside itself
  luf run none                             a design that never flushes: the oracle catches it, exit code 1
  luf run luf --leases 1 --seed 7          controlled mode: this run repeats exactly, event by event
  luf run luf_v12 --debug-luf              with LUF's own debug feature: records in pages, checked before use
  luf compare linux my_file.py:MyDesign    your own design
  luf run linux --workload my_script.py:NAME   your own workload (docs/workload.md), or a script in TOML
  luf run linux --set sysctl.numa_balancing=0
  luf compare --workload t3 --memory 60%   a recorded llama.cpp trace, in 60 % of its working set
  luf compare --workload munmap-storm:pages=8 --machine cpu-128   a workload with a parameter; 128 CPUs
  luf compare --sensitivity --seeds 5 --leases 1   how far the answer hangs on costs that nobody knows well
  luf compare --workload read-only:50%     half of what is mapped is read-only: where LUF pays, and costs
  luf compare --set sysctl.init_on_free=true   what LUF requires and what defeats it
  luf golden                               the emulator beside a real Linux kernel, operation by operation
  luf list                                 machines, workloads and designs that ship with luf
  luf report runs/latest                   show a finished run again; --timeline: when each design flushed

"""

REPORT_EXAMPLES = """\
examples:
  luf report runs/latest                   the newest run's report, as it was printed
  luf report runs/latest --timeline        when each design flushed, by what it was doing
  luf report out.json --picture out.svg    draw what --json has left
  luf report runs/latest --html page.html  a page to mail, in one file
  luf report runs/latest --table t.csv     one row a run, for pandas or a spreadsheet; also .jsonl, .parquet
  luf report runs/latest --format lkp      %stddev and %change, as the kernel's test robot prints them
  luf report runs/0001-compare runs/0002-compare     what differs between stored results, and in what they
                                           were run; with --table, --format lkp, --html, --picture, too
  luf report --schema                      the JSON schema of result.json

"""

LIST_EXAMPLES = """\
examples:
  luf list                                 machines, workloads and designs that ship with luf
  luf list designs                         one kind, with the values of each design's parameters
  luf list rows                            what a row of a workload can be: fields, and calls of scripts
  luf list hooks                           where a design is asked: arguments, locks held, result
  luf list sysctls                         the kernel's knobs: ranges, Linux's names, what they do

"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command."""
    top = Parser(
        prog="luf",
        description=DESCRIPTION,
        epilog=EXAMPLES + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action=Version, nargs=0, help="print the version of luf and leave")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)

    compare = _command(
        commands,
        "compare",
        "run designs one after the other on the same machine and workload, and compare them",
        EXAMPLES,
    )
    which = "names (luf list) or FILE.py:CLASS; default: linux luf"
    compare.add_argument("designs", nargs="*", metavar="DESIGN", default=["linux", "luf"], help=which)
    _add_run_options(compare)
    compare.add_argument(
        "--sensitivity",
        action="store_true",
        help="a tornado: compare two designs with each cost that is known by its order of magnitude alone "
        "(the machine's [grades]) halved, and doubled; side by side, resumed by the same command",
    )

    run = _command(commands, "run", "run one design", EXAMPLES)
    run.add_argument("designs", nargs=1, metavar="DESIGN", help="name (luf list) or FILE.py:CLASS")
    _add_run_options(run)

    _add_golden(commands)
    _add_litmus(commands)
    add_stress(commands)
    add_replay(commands)
    add_sweep(commands, _add_what, _add_how)

    listing = _command(commands, "list", "list machines, workloads and designs, one line each", LIST_EXAMPLES)
    listing.add_argument(
        "what",
        nargs="?",
        choices=[*LISTED, *DECLARED],
        metavar="WHAT",
        help=f"{', '.join(LISTED)} (default: all three), {', '.join(DECLARED)}",
    )

    report = _command(commands, "report", "show a finished run again", REPORT_EXAMPLES)
    report.add_argument(
        "folders",
        nargs="*",
        metavar="FOLDER",
        help="a run folder (runs/latest), or the JSON file of --json; several are put beside each other",
    )
    report.add_argument(
        "--schema",
        action="store_true",
        help="print the JSON schema of result.json and of --json instead",
    )
    report.add_argument("--picture", metavar="FILE", help="draw it, as .png, .svg or .pdf")
    report.add_argument(
        "--timeline",
        action="store_true",
        help="show when each design flushed, by site over virtual time, in blocks",
    )
    report.add_argument(
        "--html", metavar="FILE", help="write a page to mail: tables, pictures and proofs in one file"
    )
    report.add_argument(
        "--table",
        metavar="FILE",
        help="write one row a run, as .csv, .jsonl or .parquet (docs/screen.md)",
    )
    report.add_argument(
        "--format",
        choices=["screen", "lkp"],
        default="screen",
        help="lkp: as the kernel's test robot prints comparisons, mean, %%stddev and %%change",
    )
    return top


GOLDEN = """\
Run every recorded scenario on the emulator, and put the outcome beside what a real Linux kernel did. A micro
scenario is one small operation (munmap of P pages, fork, page reclaim, ...) by one of T threads: IPIs, faults
and flush events must be the same. A pressure run is a whole workload: counts must be within a factor of 1.25,
those that depend on the host's speed within 2, and changes from run to run must have the same sign.
Differences that nobody has explained come first."""

GOLDEN_EXAMPLES = """\
examples:
  luf golden                         everything; only differences are listed
  luf golden --micro --all           every row of the micro scenarios
  luf golden --only 'f_*'            scenarios, or tags of pressure runs, that match
  luf golden --pressure --only f8_d1n2
  luf golden --data my_recording     golden.json of your own kernel, in the format of the one that ships
  luf golden --pressure --only f4_d0n0 --set host.cores=2 --set host.turn_ns=2400000
                                     does a row depend on it? here: virtual CPUs that share a core
  luf golden --json out.json --plot out.png
  luf golden --again out.json        once more from that file: after explaining a difference, or with --all

exit code: 0 everything that could be judged agrees, 1 a row differs, a run leaves its band or changes in the
other direction (explained or not), 2 bad input, 3 the emulator failed, 130 Ctrl-C."""


def _add_golden(commands: argparse._SubParsersAction[Parser]) -> None:
    golden = _command(
        commands, "golden", "compare the emulator with what a real Linux kernel did, row by row"
    )
    golden.description, golden.epilog = GOLDEN, GOLDEN_EXAMPLES
    what = golden.add_argument_group("what is compared")
    what.add_argument(
        "--micro", action="store_true", help="only small operations; default: these and the pressure runs"
    )
    what.add_argument("--pressure", action="store_true", help="only pressure runs (minutes)")
    what.add_argument(
        "--only", metavar="PATTERN", help="only scenarios and tags that match, such as 'a_*' or f8_d1n2"
    )
    what.add_argument(
        "--data",
        metavar="DIR",
        help="a folder with golden.json; default: the recording that ships for this kernel",
    )
    what.add_argument(
        "--kernel", metavar="VERSION", default=KERNEL, help=f"whose rules and recording; default {KERNEL}"
    )
    how = golden.add_argument_group("how it is emulated")
    _add_number(
        how, "--jobs", 1, None, "cells at a time, and leases of a pressure run; default: this host's cores"
    )
    _add_number(how, "--seed", 0, SEED_MAX, f"of every random choice; default {SEED}", default=SEED)
    _add_number(
        how,
        "--repeat",
        1,
        100,
        f"seeds of a pressure run, from --seed on: their median and spread; default {GOLDEN_REPEAT}",
        default=GOLDEN_REPEAT,
    )
    _add_set(
        how,
        "with --pressure: change one key of the machine, to see what a row depends on, such as "
        "costs.disk_page=100000; may be repeated",
    )
    how.add_argument(
        "--again",
        metavar="FILE.json",
        help="emulate nothing: report what an earlier --json found, explained anew",
    )
    left = golden.add_argument_group("what is left")
    left.add_argument("--all", action="store_true", help="list every row, not only differences")
    left.add_argument(
        "--json",
        metavar="FILE",
        help="also write rows, cells, pressure and summary; - writes them instead of the report",
    )
    left.add_argument("--plot", metavar="FILE", help="draw real against emulated, as .png, .svg or .pdf")
    left.add_argument(
        "--doc",
        metavar="FILE.md",
        help="write the comparison as a page with its picture beside it; docs/fidelity.md "
        "only from committed sources",
    )


LITMUS = """\
Run litmus tests: a few calls of a few threads, side by side, whose outcome is judged (docs/litmus.md). Each
test runs in controlled mode with so many seeds, so each run has another schedule, and repeats. A line for
each test and design says how many runs had an outcome that is forbidden, and how many were void: what the
test needs to mean anything had not happened."""

LITMUS_EXAMPLES = """\
examples:
  luf litmus --list                        the tests that ship: what each shows, covers and catches
  luf litmus --runs 20                     all of them under linux and luf
  luf litmus munmap --designs none:what=user luf
  luf litmus munmap:pages=16,access=try_load   one test of a family; pages=3 would be one of your own
  luf litmus lazy-then --schedule walk:distance=100   CPUs hand over anywhere in the kernel
  luf litmus cow-read --exhaustive         each schedule with at most two preemptions, once
  luf litmus my.litmus --runs 1000         your own (docs/litmus.md has the format on a page)
  luf run luf --workload my.litmus --seed 7    one run of it, with report and proof

exit code: 0 no forbidden outcome, 1 some test had one, 2 bad input, 3 the emulator failed, 130 Ctrl-C."""


def _add_litmus(commands: argparse._SubParsersAction[Parser]) -> None:
    litmus = _command(commands, "litmus", "run litmus tests under designs, and count outcomes")
    litmus.description, litmus.epilog = LITMUS, LITMUS_EXAMPLES
    litmus.add_argument(
        "tests", nargs="*", metavar="TEST", help="FILE.litmus, or a name of --list; default: all that ship"
    )
    litmus.add_argument(
        "--designs", nargs="+", metavar="DESIGN", default=["linux", "luf"],
        help="names (luf list) or FILE.py:CLASS; default: linux luf",
    )  # fmt: skip
    _add_number(litmus, "--runs", 1, 10**6, "runs of each test under each design; default 10", default=10)
    _add_number(litmus, "--seed", 0, SEED_MAX, f"of the first run; default {SEED}", default=SEED)
    litmus.add_argument(
        "--schedule",
        metavar="STRATEGY",
        type=scheduled,
        help="let CPUs hand over anywhere in the kernel, as for luf run: walk:distance=300, pct:depth=3 ...; "
        "its seed is that of the run",
    )
    litmus.add_argument(
        "--exhaustive",
        action="store_true",
        help="run all schedules with at most so many --preemptions instead, as far as there is time: at each "
        "access to what another CPU uses, too, it may be another one's turn",
    )
    _add_number(litmus, "--preemptions", 0, 5, "of --exhaustive; default 2", default=2)
    _add_number(litmus, "--seconds", 1, 10**6, "of --exhaustive, for each test; default 60", default=60)
    litmus.add_argument(
        "--out", metavar="DIR", default=OUT,
        help=f"where its folder with replay files goes, as DIR/NNNN-litmus; default {OUT}",
    )  # fmt: skip
    litmus.add_argument("--list", action="store_true", help="run nothing: list the tests")
    litmus.add_argument(
        "--check",
        choices=["full", "states", "bounds", "off"],
        default="full",
        help="as for luf run; default full",
    )


def _add_run_options(command: argparse.ArgumentParser) -> None:
    _add_what(command.add_argument_group("what is emulated"))
    _add_how(command.add_argument_group("how it is emulated"))
    left = command.add_argument_group("what is left")
    left.add_argument(
        "--out",
        metavar="DIR",
        default=OUT,
        help=f"where run folders go; default {OUT}. Each run leaves DIR/NNNN-NAME, and "
        "DIR/latest points to the newest",
    )
    left.add_argument(
        "--json",
        metavar="FILE",
        help="also write the result there; - writes it to stdout instead of the report",
    )
    left.add_argument(
        "--trace",
        metavar="FILE",
        help="also write what each CPU was at, when, and who interrupted whom, for ui.perfetto.dev, such as "
        "out.pftrace; a name that ends in .gz is compressed (docs/trace.md)",
    )


def scheduled(text: str) -> object:
    """Convert walk:distance=300 to a Schedule."""
    from emulator.schedule import parse_schedule

    try:
        return parse_schedule(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _add_what(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--machine",
        metavar="NAME|FILE.toml",
        help=f"CPUs, memory nodes, TLBs, sysctls and the cost of each event; default {MACHINE}, the talk's, "
        f'or what a litmus test says. A file that starts with like = "{MACHINE}" changes only what it names',
    )
    group.add_argument(
        "--workload",
        metavar="NAME|FILE",
        default=WORKLOAD,
        help=f"what the CPUs execute; default {WORKLOAD}, the talk's. `luf list workloads` has the others, "
        "some with parameters, NAME:key=value,key=value. FILE is a recorded trace (.npz), a script "
        "(.toml), FILE.py:NAME, a script in Python (docs/workload.md), or a litmus test (FILE.litmus)",
    )
    group.add_argument(
        "--scale",
        metavar="N",
        type=at_least(1, 2**20, float),
        help="divide memory and model size by N. TLBs, batch sizes and costs per page stay; watermarks go "
        "with the square root. Default: the machine's default_scale",
    )
    _add_number(
        group,
        "--cpus",
        1,
        CPUS_MAX,
        f"emulated CPUs, each a process, 1 to {CPUS_MAX}; default: the machine's",
    )
    group.add_argument(
        "--tokens",
        metavar="N",
        type=at_least(1, None, int),
        default=TOKENS,
        help="how long: the tokens that each llama.cpp generates, the rounds of other workloads; default "
        f"{TOKENS}. At most 507 (a context of 512, 5 of them the prompt), and 1,000 rounds",
    )
    group.add_argument(
        "--memory",
        metavar="PERCENT%",
        type=percentage,
        help="give the machine memory for so much of the workload's working set, in the proportions of its "
        "nodes; 60%% is hard pressure. Default: what --scale leaves",
    )
    _add_set(
        group,
        "change one key of the machine, such as costs.ipi_latency=900 or "
        "sysctl.numa_balancing=0; may be repeated",
    )


def _add_how(group: argparse._ArgumentGroup) -> None:
    _add_number(
        group,
        "--leases",
        0,
        LEASES_MAX,
        f"emulated CPUs that execute at a time, at most {LEASES_MAX}; default: the cores of this "
        "host. 1 is the controlled mode: the run repeats exactly for the same seed. 0: no gate, "
        "the host's scheduler decides",
    )
    group.add_argument(
        "--slice",
        metavar="NS",
        type=at_least(1, 10**12, int),
        help="how far a CPU goes in virtual time before those that are behind it go first: who is busy when "
        "a flush is sent, and so the number of shootdowns, hangs on it where it is longer than what CPUs do "
        f"at a stretch. Default {SLICE_NS:,}",
    )
    _add_number(
        group,
        "--seed",
        0,
        SEED_MAX,
        f"of every random choice; default {SEED}. Exact repetition needs --leases 1",
        default=SEED,
    )
    _add_number(
        group,
        "--seeds",
        1,
        SEEDS_MAX,
        "run each design with so many seeds, from --seed on, all designs in turn: medians, the 95 %% "
        "interval of each change, and whether it is more than chance, for which 5 are the least. Default 1",
        default=1,
    )
    group.add_argument(
        "--check",
        choices=["full", "accesses", "states", "bounds", "off"],
        default="full",
        help="full (the default): judge every load and store against what the page really holds, and every "
        "frame before it changes hands, which costs little; accesses, states: only one of these; bounds: "
        "full, and indexes, owners and divisions in the design's own code; off: nothing",
    )
    group.add_argument(
        "--schedule",
        metavar="STRATEGY",
        type=scheduled,
        help="with --leases 1, let CPUs hand over anywhere in the kernel, at accesses that others may see: "
        "walk, or pct, surw, starve, hooks, places, with parameters, walk:distance=300,seed=7 "
        "(docs/commands.md). With more leases CPUs are held up there for short random times instead",
    )
    group.add_argument(
        "--strict-ipi",
        action="store_true",
        help="send one message per IPI request, even to a target that has one pending (Linux does not)",
    )
    group.add_argument(
        "--debug-luf",
        action="store_true",
        help="LUF's own debug feature (CONFIG_LUF_DEBUG), for luf and luf_v12: a page that is freed "
        "unflushed keeps a record of the CPUs that may still read it, and the kernel checks the "
        "record before it writes to the page (kmap) or makes a PTE of it writable (mkwrite). It "
        "checks the design's bookkeeping where the oracle checks contents: it finds a skipped flush "
        "before anybody has read, and misses what the bookkeeping misses (docs/debug-luf.md). One "
        "lock then serialises all done-numbers, so CPUs interleave differently",
    )


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options; leaves with code 2 and one sentence on a mistake."""
    reader = parser()
    options = reader.parse_args(sys.argv[1:] if arguments is None else arguments)
    for name in PLACES:
        if getattr(options, name, None) == "":  # a shell variable that is not set, most likely
            reader.error(
                f"argument {name if name in ('folder', 'file') else '--' + name}: must be the name of "
                "a file or folder (got '')"
            )
    return options
