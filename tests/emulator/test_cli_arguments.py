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


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("costs.walk=1", "costs.walk", 1),
        (" costs.walk = 1 ", "costs.walk", 1),
        ("tlb.pcid=false", "tlb.pcid", False),
        ("name=a word", "name", "a word"),
        ('name="a # word"', "name", "a # word"),
        ("nodes.0.cpus=0-2,3", "nodes.0.cpus", "0-2,3"),
        ("costs.walk=1 # ns", "costs.walk", "1 # ns"),
        ("a=1, b = 2", "a", "1, b = 2"),
    ],
)
def test_a_setting_is_one_value(text, key, value):
    """Of TOML if it is that, else text: nothing of it is dropped, and it sets nothing else."""
    assert parse(["run", "linux", "--set", text]).overrides == [(key, value)]


@pytest.mark.parametrize(
    "text",
    [
        'costs.walk=1\nlike="x"',
        "costs.walk=1\r",
        'name="a\x7fb"',
        'name="a\\u007fb"',
        "name=\udcff",
        "na\x1bme=1",
        "costs.walk",
        "=1",
        "costs.walk=" + "[" * 5000,
        "costs.walk=" + "9" * 5000,
        "costs.walk=0x" + "f" * 5000,
        "costs.walk=nan",
    ],
)
def test_a_setting_that_cannot_be_is_refused(capsys, text):
    """In a sentence that fits a few lines and has no character that a terminal would obey."""
    told = said(capsys, "run", "linux", "--set", text)
    assert told.startswith("luf: argument --set: ")
    assert told.rstrip("\n").isprintable()
    assert len(told) < 300


@pytest.mark.parametrize("word", ["\x1b[31mred", "x" * 5000, "\udcff", "9" * 5000])
@pytest.mark.parametrize("option", ["--cpus", "--scale", "--memory", "--check", "--nothing", ""])
def test_any_odd_word_gets_one_sentence(capsys, option, word):
    """Also a command, and an option, that there is not."""
    told = said(capsys, *(["run", "linux", option, word] if option else [word]))
    assert told.startswith("luf: ")
    assert told.rstrip("\n").isprintable()
    assert len(told) < 600


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
