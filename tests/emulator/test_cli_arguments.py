"""What the command line says about itself: rules in plain numbers, limits, the examples of each command, the
version.
"""

from __future__ import annotations

from importlib import metadata

import pytest

from cpus.abi.numbers import CPUS_MAX, LEASES_MAX
from emulator.cli_arguments import TOKENS, parse
from workloads import workload


def said(capsys, *arguments: str) -> str:
    """Give what a command line that leaves at once has printed."""
    with pytest.raises(SystemExit):
        parse(list(arguments))
    printed = capsys.readouterr()
    return printed.out + printed.err


def test_limits_are_those_of_the_engine_and_in_the_help(capsys):
    """One lease more, or one token more than the help says, is refused."""
    shown = " ".join(said(capsys, "run", "--help").split())
    assert f"at most {LEASES_MAX};" in shown
    assert f"each a process, 1 to {CPUS_MAX};" in shown
    assert f"--leases: must be a whole number from 0 to {LEASES_MAX} (got" in said(
        capsys, "run", "luf", "--leases", "63"
    )
    assert (
        f"default {TOKENS}. At most 507 (a context of 512, 5 of them the prompt), and 1,000 rounds" in shown
    )
    for name, most in (("tiny8:scale=16", 507), ("churn:threads=1", 1000)):
        workload(name, tokens=most)
        with pytest.raises(ValueError, match="'tokens'"):
            workload(name, tokens=most + 1)


@pytest.mark.parametrize("command", ["list", "report"])
def test_a_command_shows_its_own_examples(capsys, command):
    """Not all sixteen of the others."""
    shown = said(capsys, command, "--help")
    examples = [line for line in shown.splitlines() if line.startswith("  luf ")]
    assert len(examples) >= 2
    assert all(line.split()[:2] == ["luf", command] for line in examples)


@pytest.mark.parametrize("installed", [True, False])
def test_the_version(capsys, monkeypatch, installed):
    """`luf --version`, also from sources that are not installed."""

    def version(name: str) -> str:
        assert name == "luf-emulator"
        if not installed:
            raise metadata.PackageNotFoundError(name)
        return "1.2.3"

    monkeypatch.setattr(metadata, "version", version)
    assert said(capsys, "--version") == (
        "luf 1.2.3\n" if installed else "luf (not installed: run from its sources)\n"
    )
