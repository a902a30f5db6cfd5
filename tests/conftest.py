"""What holds for all tests: the engine is compiled once before they begin, however many processes run them
(pytest-xdist), and no witness of a violation contradicts itself.
"""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Compile in the process that starts the others; each of those would do it anew, on cores that they
    share.
    """
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        from tests.allocator.small_machine import SmallMachine

        SmallMachine().ram.close()


@pytest.fixture(autouse=True)
def _witnesses_are_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every witness that a test makes, of whatever run, is looked at."""
    from emulator.judge import witness
    from tests.emulator.witness_order import checked

    monkeypatch.setattr(witness, "witnessed", checked(witness.witnessed))
