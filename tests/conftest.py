"""What holds for all tests: both engines are compiled once before they begin, however many processes run them
(pytest-xdist), no witness of a violation contradicts itself, and signals are answered as from a terminal.
"""

import signal

import pytest

from cpus.ending import ENDING


def pytest_configure(config: pytest.Config) -> None:
    """Compile before others start that would each do it anew, on cores that they share."""
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        from tests.support.engines import compile_engines

        compile_engines()
    _answer_signals()


def _answer_signals() -> None:
    """A shell has what it runs in the background ignore some, and a program that they are to end goes on for
    ever.
    """
    for number in ENDING:
        if signal.getsignal(number) == signal.SIG_IGN:
            usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, usual)


@pytest.fixture(autouse=True)
def _witnesses_are_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every witness that a test makes, of whatever run, is looked at."""
    from emulator.judge import witness
    from tests.emulator.witness_order import checked

    monkeypatch.setattr(witness, "witnessed", checked(witness.witnessed))
