"""A design as a run uses it: looked at, and to be sent to another process. Whatever its code does wrong is
one sentence with the user's file and line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from allocator.hooks import HOOK_KTHREAD
from cpus.compiled import Entry
from cpus.install import install_at
from cpus.layout import Sizes
from cpus.segment import DesignFields
from designs.blame import blamed_on, compiling, place_of_function
from designs.checked_hooks import checked_hooks
from designs.declaration import check_declared, check_fields, check_statistics
from designs.design import Design, DesignError, hook_places
from designs.sent import Sent, code_of, made_again, what_to_send


class ReadyDesign:
    """A design that was looked at once, when this object was made. It pickles by value (sent.py)."""

    def __init__(self, design: Design):
        """Take a design as it is. Raises DesignError for what it declares wrongly."""
        check_declared(design)
        self.design = design
        self._code = code_of(type(design))

    @property
    def name(self) -> str:
        """What reports call it."""
        return self.design.name

    @property
    def parameters(self) -> dict[str, str]:
        """All its parameters, with the values that it was made with."""
        return dict(getattr(self.design, "chosen", {}))

    @property
    def relies_on(self) -> tuple[str, ...]:
        """The rare branches that its safety depends on."""
        return self.design.relies_on

    @property
    def has_thread(self) -> bool:
        """Does it have a kernel thread of its own?"""
        return any(item.text == HOOK_KTHREAD for item in self.design.hooks)

    @property
    def places(self) -> dict[str, str]:
        """Where the function of each of its hooks stands, by the hook's name."""
        return hook_places((*self.design.hooks, *self.design.debug_hooks))

    def check_debug_luf(self) -> None:
        """Raise DesignError if LUF's debug feature has nothing to look at in this design, or would take the
        place of one of its hooks.
        """
        if not self.design.debug_hooks:
            raise DesignError(
                "'--debug-luf' looks at LUF's keys and records: give luf, luf_v12 or one made of "
                f"them (got {self.name!r})"
            )
        taken = {item.text: item.name for item in self.design.hooks}
        for item in self.design.debug_hooks:
            if item.text in taken:
                raise DesignError(
                    f"'--debug-luf' needs a hook that design {self.name!r} has taken itself "
                    f"(got {taken[item.text]!r})"
                )

    def hooks(self, *, debug_luf: bool = False, bounds: bool = False) -> tuple[Entry, ...]:
        """Give the functions to install: with those of LUF's debug feature, or compiled with checks."""
        hooks = (*self.design.hooks, *(self.design.debug_hooks if debug_luf else ()))
        return checked_hooks(hooks) if bounds else hooks

    def install(self, ram: Any, hooks: Sequence[Entry], progress: Callable | None) -> None:
        """Compile or load these hooks of it. Raises DesignError at the line that does not compile."""
        missing = [item for item in hooks if not item.is_compiled_or_cached(ram._type)] if progress else []
        for item in hooks:
            if progress and item in missing:
                progress(item.name, missing.index(item), len(missing))
            with compiling(item):
                install_at(ram, item.text, item)

    def fields(self, sizes: Sizes) -> DesignFields:
        """Ask it for its fields. Raises DesignError."""
        file, line = place_of_function(type(self.design).fields)
        with blamed_on(file):
            fields = self.design.fields(sizes)
        check_fields(fields, f"{file}:{line}")
        return fields

    def prepare(self, ram: Any) -> None:
        """Let it set its initial values. Raises DesignError for what it raises."""
        with blamed_on(place_of_function(type(self.design).prepare)[0]):
            self.design.prepare(ram)

    def statistics(self, ram: Any) -> dict[str, Any]:
        """Ask it for its figures of a run that is over. Raises DesignError."""
        file, line = place_of_function(type(self.design).statistics)
        with blamed_on(file):
            found = self.design.statistics(ram)
        check_statistics(found, f"{file}:{line}")
        return found

    def __reduce__(self) -> tuple[Callable, tuple[Sent]]:
        return _arrived, (what_to_send(self.design, self._code),)


def _arrived(sent: Sent) -> ReadyDesign:
    return ReadyDesign(made_again(sent))
