"""What the arguments of all commands are made of: parsers, converters that give rule and value when they
refuse, options that several commands have. Imports nothing heavy.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

from inputs.text import clipped, is_odd, on_a_line

SEED = 1
OUT = "runs"
MESSAGE = 400  # characters of a refusal

EXIT_CODES = """\
exit code: 0 clean, 1 a violation, a deadlock or something unaccounted for, 2 bad input, or an output that
cannot be written, 3 the emulator or its host failed, 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP. LUF_DEBUG=1 shows a
traceback with any error."""


class Parser(argparse.ArgumentParser):
    """An argument parser that answers a mistake with one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"luf: {on_a_line(message, MESSAGE)} (see {self.prog} --help)\n")


class Version(argparse.Action):
    """Print the version, which only a question for it looks up."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import PackageNotFoundError, version

        try:
            known = version("luf-emulator")
        except PackageNotFoundError:
            known = "(not installed: run from its sources)"
        sys.stdout.write(f"luf {known}\n")
        parser.exit(0)


def at_least(least: float, most: float | None, kind: Callable[[str], float]) -> Callable[[str], float]:
    """Return a converter for argparse that gives rule and value when it refuses."""
    noun = "a whole number" if kind is int else "a number"
    rule = f"{noun} of at least {least:,}" if most is None else f"{noun} from {least:,} to {most:,}"

    def convert(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not value >= least or (most is not None and value > most):
            raise argparse.ArgumentTypeError(f"must be {rule} (got {clipped(text)})")
        return value

    return convert


def percentage(text: str) -> float:
    """Convert 60% to 0.6."""
    try:
        value = float(text.removesuffix("%")) / 100
    except ValueError:
        value = 0.0
    if not text.endswith("%") or not 0.01 <= value <= 10:
        raise argparse.ArgumentTypeError(f"must be a percentage from 1% to 1000% (got {clipped(text)})")
    return value


def assignment(text: str) -> tuple[str, object]:
    """Convert KEY=VALUE of --set; the value is read as TOML if it is one value of it, else taken as text."""
    from inputs.decode import NotOneValue, toml_value

    key, equals, value = (word.strip() for word in text.partition("="))
    if not equals or not key:
        rule = "be KEY=VALUE, such as sysctl.numa_balancing=0"
        raise argparse.ArgumentTypeError(f"must {rule} (got {clipped(text)})")
    if is_odd(text) or "\n" in text:
        raise argparse.ArgumentTypeError(f"must be one line without control characters (got {clipped(text)})")
    try:
        return key, toml_value(value)
    except NotOneValue:
        return key, value
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error} (got {clipped(text)})") from None


def add_number(
    group: argparse._ActionsContainer,
    name: str,
    least: int,
    most: int | None,
    text: str,
    default: int | None = None,
) -> None:
    group.add_argument(name, metavar="N", type=at_least(least, most, int), default=default, help=text)


def add_set(group: argparse._ArgumentGroup, text: str) -> None:
    group.add_argument(
        "--set",
        metavar="KEY=VALUE",
        type=assignment,
        action="append",
        default=[],
        dest="overrides",
        help=text,
    )


def command(
    commands: argparse._SubParsersAction[Parser], name: str, what_it_does: str, examples: str = ""
) -> argparse.ArgumentParser:
    text = what_it_does[0].upper() + what_it_does[1:] + "."
    layout = argparse.RawDescriptionHelpFormatter
    return commands.add_parser(
        name, help=what_it_does, description=text, epilog=examples + EXIT_CODES, formatter_class=layout
    )
