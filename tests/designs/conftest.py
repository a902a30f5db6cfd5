"""The same small machines as for the memory management."""

from tests.allocator.conftest import broken_machine, small_machine  # noqa: F401 (fixtures)
