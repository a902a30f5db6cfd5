"""Compiled code that is called through its address (numba.cfunc), with exceptions that keep their values.

Left out: the call itself (compiled.py).
"""

from __future__ import annotations

from typing import Any

from numba.core.ccallback import CFunc


class Callback(CFunc):
    """A compiled callback. numba's own forgets the values of an exception, `raise E(value)`, unless it was
    taken from the cache.
    """

    environment: Any = None  # lives as long as the code

    def _compile_uncached(self) -> Any:
        done = super()._compile_uncached()  # type: ignore[misc]
        self.environment = done.environment
        return done

    def compile(self) -> None:
        """Compile, or load from the cache."""
        super().compile()
        if self.environment is not None:
            library: Any = self._library  # type: ignore[attr-defined]
            library.codegen.set_env(self.environment.env_name, self.environment)
