"""The JSON of a recorded trace, as declared types, and what in it must go together: regions, the mappings
that lie in them, evaluations, system calls.

Left out: what only people read (columns, filter, run, capture, tensors).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta, Struct

from cpus.abi.numbers import PAGE_BYTES, TASK_SIZE
from inputs.checked import Line, Natural
from inputs.text import clipped, whole_number
from workloads.rows import EVALUATIONS_MAX, PAGES_MAX, REGIONS_MAX

PAGES_OF_REGION = Annotated[int, Meta(ge=1, le=PAGES_MAX)]
NEEDED = ("weights", "libs", "main_stack", "thread_stack")  # regions without which nothing can be replayed
PAGE_NUMBER = Annotated[int, Meta(ge=0, le=TASK_SIZE - 1)]


class TracedRegion(Struct, frozen=True, kw_only=True):
    """One region; rows name it by its id, its number in the list."""

    id: Natural
    name: Line
    pages: PAGES_OF_REGION
    file_backed: bool
    writable: bool


class Mapping(Struct, frozen=True, kw_only=True):
    """Where pages of a region lay in the recorded address space."""

    region: Line
    first_page: Natural
    pages: PAGES_OF_REGION
    vpn: PAGE_NUMBER


class Evaluation(Struct, frozen=True, kw_only=True):
    """One call of llama_decode."""

    i: Annotated[int, Meta(ge=0, lt=EVALUATIONS_MAX)]
    kind: Line


class Model(Struct, frozen=True, kw_only=True):
    """The model that was evaluated."""

    file: Line | None = None


class MemoryCall(Struct, frozen=True, array_like=True):
    """One system call; those of start-up are of evaluation -1."""

    evaluation: Annotated[int, Meta(ge=-1, lt=EVALUATIONS_MAX)]
    thread: Natural
    name: Line
    address: Annotated[int, Meta(ge=0)]
    length: Annotated[int, Meta(ge=0)]
    third: int  # of madvise: the advice
    fourth: int


class About(Struct, frozen=True, kw_only=True):
    """All of it that is read."""

    page_size: int
    regions: Annotated[list[TracedRegion], Meta(min_length=1, max_length=REGIONS_MAX - 1)]
    evals: Annotated[list[Evaluation], Meta(min_length=1, max_length=EVALUATIONS_MAX)]
    mark_names: dict[str, str]
    mappings: Annotated[list[Mapping], Meta(max_length=4096)]
    memory_syscalls: Annotated[list[MemoryCall], Meta(max_length=100_000)]
    model: Model = Model()
    what: str = ""


def check_about(name: str, about: About) -> None:
    """Raise ValueError for the first thing in the JSON that does not go with the rest."""
    for key, rule, got in _broken(about):
        raise ValueError(f"{name}: '{key}' must {rule} (got {clipped(got)})")


def _broken(about: About) -> Iterator[tuple[str, str, object]]:
    if about.page_size != PAGE_BYTES:
        yield "page_size", f"be {PAGE_BYTES}", about.page_size
    names = [region.name for region in about.regions]
    for number, region in enumerate(about.regions):
        if region.id != number:
            yield f"regions[{number}].id", f"be its number in the list, {number}", region.id
    if len(set(names)) < len(names):
        yield "regions", "have a name each", names
    for needed in NEEDED:
        if needed not in names:
            yield "regions", f"have one with the name {needed!r}", names
    sizes = {region.name: region.pages for region in about.regions}
    for number, mapping in enumerate(about.mappings):
        if mapping.region not in sizes:
            yield f"mappings[{number}].region", "be one of the regions", mapping.region
        elif mapping.first_page + mapping.pages > sizes[mapping.region]:
            end = mapping.first_page + mapping.pages
            rule = f"end inside region {mapping.region!r} of {sizes[mapping.region]} pages"
            yield f"mappings[{number}]", rule, end
    numbers = [one.i for one in about.evals]
    if sorted(set(numbers)) != numbers:
        yield "evals", "have numbers i that grow", numbers
    for key in about.mark_names:
        if whole_number(key) is None:
            yield "mark_names", "have numbers as keys", key
    yield from _broken_stacks(about)


def _broken_stacks(about: About) -> Iterator[tuple[str, str, object]]:
    """The stacks of workers, of one size, fill their region one after the other."""
    found = sorted((m.first_page, m.pages) for m in about.mappings if m.region == "thread_stack")
    sizes = sorted({pages for _, pages in found})
    if len(sizes) > 1:
        yield "mappings", "have stacks of one size", sizes
    if [first for first, _ in found] != [k * sizes[0] for k in range(len(found))]:
        yield "mappings", "have stacks one after the other, from page 0 on", found
    pages = next(region.pages for region in about.regions if region.name == "thread_stack")
    if found and len(found) * sizes[0] != pages:
        yield (
            "mappings",
            f"have the stacks of all {pages} pages of region 'thread_stack'",
            len(found) * sizes[0],
        )
