"""The engine is compiled once before the tests begin, however many processes run them (pytest-xdist)."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Compile in the process that starts the others; each of those would do it anew, on cores that they
    share.
    """
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        from tests.allocator.small_machine import SmallMachine

        SmallMachine().ram.close()
