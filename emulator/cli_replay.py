"""The arguments of `luf replay`. Imports nothing heavy."""

from __future__ import annotations

import argparse

from emulator.cli_parts import Parser, add_number, command

REPLAY = """\
Run a stored case again: a design, a litmus test or a workload, a seed, and which CPU hands over to which at
what scheduling point (docs/replay.md). It does the same each time, event by event; the proof is printed, and
whether it is what the file says."""

REPLAY_EXAMPLES = """\
examples:
  luf replay found.toml                    once, with its proof
  luf replay found.toml --times 100        does it repeat?
  luf replay found.toml --design linux     the same test and schedule under another design
  luf replay found.toml --shrink small.toml    a smaller case that shows the same

exit code: 0 nothing was found, 1 the violation was seen (or another one), 2 bad input, 3 the emulator failed,
130 Ctrl-C."""


def add_replay(commands: argparse._SubParsersAction[Parser]) -> None:
    replay = command(commands, "replay", "run a stored case again, to the event")
    replay.description, replay.epilog = REPLAY, REPLAY_EXAMPLES
    replay.add_argument("file", metavar="FILE", help="a replay file, TOML")
    add_number(replay, "--times", 1, 10**6, "runs; default 1", default=1)
    replay.add_argument("--design", metavar="DESIGN", help="run it under this design instead")
    replay.add_argument(
        "--shrink",
        metavar="OUT.toml",
        help="make it smaller, as long as it shows the same, and write that there",
    )
    add_number(replay, "--seconds", 1, 10**6, "of host time for --shrink; default 20", default=20)
