"""What came of an input, and what of it is a finding: anything but one sentence with exit code 2, or an
accepted input that does not contradict itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

LONGEST = 1200  # of a sentence: some lines of a terminal
NAMED = re.compile(r"(?m)^luf: ")
# what a run says before it begins; it may be refused behind that, as by what --json is to write to
NOTE = re.compile(r"\Aluf: --leases 1 is the controlled mode: [^\n]*\n")
MEMORY = re.compile(r"(?i)unable to allocate|cannot allocate|memoryerror|out of memory(?! of the emulated)")
HOST = re.compile(
    r"of host memory|open files|this shell allows|the host"
)  # what this host cannot carry is no mistake of a file


@dataclass(frozen=True, slots=True)
class Said:
    """What a command left: exit code, both streams, the exception that it ended with and where, memory that
    it took.
    """

    code: int
    out: str
    err: str
    trouble: str = ""
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Finding:
    """`kind` and `place` tell one fault from another, `text` shows it."""

    kind: str
    place: str
    text: str


def judged(said: Said, files: Sequence[str], bytes_max: int) -> Iterator[Finding]:
    """Give what is wrong with what a command said; a refusal must name one of `files`, if there are any."""
    if said.trouble:
        yield Finding("hang" if said.trouble.startswith("hang") else "exception", said.trouble, said.trouble)
        return
    if said.bytes > bytes_max or (said.code == 2 and MEMORY.search(said.err)):
        yield Finding(
            "memory", skeleton(said.err) or "accepted", f"{said.bytes >> 20} MiB: {said.err.strip()}"
        )
    if said.code == 2:
        for kind in _wrong_with(NOTE.sub("", said.err), files):
            yield Finding(kind, skeleton(said.err)[: 40 if kind == "too long" else None], said.err)
    elif said.code in (0, 1):
        strange = [line for line in said.err.splitlines() if not line.startswith("luf: ")]
        if strange or not _printable(said.err):
            yield Finding("said", skeleton(said.err), said.err)
        if not _printable(said.out):
            yield Finding("control characters", "on the screen", said.out)
    else:
        yield Finding(f"exit code {said.code}", skeleton(said.err), said.err)


def _wrong_with(sentence: str, files: Sequence[str]) -> Iterator[str]:
    """Say what a refusal is not."""
    if len(NAMED.findall(sentence)) != 1 or sentence.count("\n") != 1 or not sentence.endswith("\n"):
        yield "not one sentence"
    if len(sentence) > LONGEST:
        yield "too long"
    if not _printable(sentence):
        yield "control characters"
    if files and not any(file in sentence for file in files) and not HOST.search(sentence):
        yield "names no file"


def _printable(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


def skeleton(text: str) -> str:
    """Leave out of a sentence what differs from input to input: values, names, numbers."""
    text = re.sub(r"'[^']*'|\"[^\"]*\"|\(got.*|\bgot:.*", "*", text.strip()[:LONGEST])
    return re.sub(r"[^\x20-\x7e]|[-\d.,]*\d", "#", text)[:160]
