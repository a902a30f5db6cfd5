"""What depends on the kernel version: its rules (`rules.toml`) and the known reasons for differences
(`explained.toml`).

Another kernel version is another folder beside `emulator/golden/6.12`, not another `if`.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from emulator.golden.data import FILE, GoldenError, Recording
from inputs.checked import converted
from inputs.decode import read_toml
from inputs.file import shown
from inputs.text import clipped, whole_number

Text = Annotated[str, Meta(min_length=1)]
Count = Annotated[int, Meta(ge=1)]
PAGES_MAX = 2**40
FUNCTION = re.compile(r"\b[a-z_][a-z0-9_]*\(\)")


class Constants(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Constants of the kernel source that an emulation of this version must use, under their Linux names in
    lower case.
    """

    tlb_single_page_flush_ceiling: Count
    folio_batch_size: Count
    migrate_batch_pages: Count
    swap_cluster_max: Count
    pgsteal_includes_demoted: bool


class Names(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The names that recordings of this version use."""

    counters: Annotated[list[Text], Meta(min_length=1)]
    full_flush: Text


class Rules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kernel version."""

    kernel: Text
    recorded: Text
    constants: Constants
    names: Names


class Explanation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A known reason for differences, with the Linux function; covers cells by scenario, metric, T and P,
    pressure runs by tag.
    """

    scenario: Text
    mechanism: Text
    metric: Text = "*"
    T: list[Count] = []
    P_min: Count = 1
    P_max: Count = PAGES_MAX

    def covers(self, scenario: str, metric: str, threads: int, pages: int | None = None) -> bool:
        """Tell if a row is meant; a pressure run has no number of pages, so only entries without bounds on it
        cover one.
        """
        if pages is None and (self.P_min, self.P_max) != (1, PAGES_MAX):
            return False
        inside = pages is None or self.P_min <= pages <= self.P_max
        return (
            inside
            and fnmatchcase(scenario, self.scenario)
            and fnmatchcase(metric, self.metric)
            and threads in (self.T or [threads])
        )


class NotModelled(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something that the recording has, or that a kernel does, and the emulator leaves out."""

    what: Text
    why: Text


class Explained(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole table."""

    difference: list[Explanation] = []
    not_modelled: list[NotModelled] = []

    def of(self, scenario: str, metric: str, threads: int, pages: int | None = None) -> str:
        """Return the mechanism behind a difference, empty if nobody knows it yet."""
        covering = (
            entry.mechanism for entry in self.difference if entry.covers(scenario, metric, threads, pages)
        )
        return next(covering, "")


def read_rules(folder: Path) -> Rules:
    """Read a version's rules.toml; raises GoldenError with file, key, rule and value."""
    file = folder / "rules.toml"
    rules = converted(read_toml(file, GoldenError), Rules, str(file), GoldenError)
    if rules.kernel != folder.name:
        raise GoldenError(
            f"{file}: 'kernel' must be its folder's name {folder.name!r} (got {rules.kernel!r})"
        )
    return rules


def read_explained(folder: Path) -> Explained:
    """Read a version's explained.toml; raises GoldenError, also if a mechanism names no Linux function."""
    file = folder / "explained.toml"
    explained = converted(read_toml(file, GoldenError), Explained, str(file), GoldenError)
    for i, entry in enumerate(explained.difference):
        if not FUNCTION.search(entry.mechanism):
            rule = "name the Linux function as name()"
            raise GoldenError(f"{file}: 'difference[{i}].mechanism' must {rule} (got {entry.mechanism!r})")
        if entry.P_min > entry.P_max:
            raise GoldenError(
                f"{file}: 'difference[{i}].P_min' must be at most P_max (got {entry.P_min} > {entry.P_max})"
            )
    return explained


def check_recording(rules: Rules, recording: Recording) -> None:
    """Raise GoldenError if a recording's flushes are not those of this kernel version: ranged up to the
    ceiling, else full.
    """
    ceiling, full = rules.constants.tlb_single_page_flush_ceiling, rules.names.full_flush
    for cell in recording.micro:
        for event in cell.traced.events_per_rep:
            pages = event.partition("/")[2]
            number = whole_number(pages)
            if pages != full and (number is None or number > ceiling):
                where = f"{shown(recording.folder / FILE)}: {cell.scenario}, T={cell.T}, P={cell.P}"
                rule = (
                    f"be of at most {ceiling} pages or {full} "
                    f"(tlb_single_page_flush_ceiling of Linux {rules.kernel})"
                )
                raise GoldenError(f"{where}: 'traced.events_per_rep' must {rule} (got {clipped(event)})")
