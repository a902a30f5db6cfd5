"""Give luf odd inputs, thousands of them, through every reader that it has, and say what it answers with
anything but one sentence.

    python -m tests.campaigns.fuzz --minutes 30
    python -m tests.campaigns.fuzz --minutes 5 --only trace --seed 7

A finding is an exception, exit code 3, a hang, memory without bound, a refusal that is not one plain sentence
that names the file, or an input that is accepted though it contradicts itself
(tests/campaigns/fuzzing/judge.py, readers.py). Each that differs by reader and place is kept in
tests/campaigns/corpus, which a test replays, from the moment it is found, and made smaller at the end. Ctrl-C
ends a campaign with its summary, too. Exit code 1 if there are findings; 130 or 143 after a signal.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from emulator.ending import SIGNALLED, endings_raised, signal_of
from tests.campaigns.fuzzing.documents import Document, smaller
from tests.campaigns.fuzzing.inputs import Input, saved
from tests.campaigns.fuzzing.judge import Finding
from tests.campaigns.fuzzing.readers import Reader
from tests.campaigns.fuzzing.table import READERS
from tests.campaigns.fuzzing.worker import Limits, Program, made, serve

ROOT, CORPUS = Path(__file__).parents[2], Path(__file__).with_name("corpus")
SHRINK_S = 3.0  # for each finding
LINE_EVERY_S = 20.0
Key = tuple[str, str, str]  # reader, kind, place


class Worker:
    """A worker process and what it is at; one that dies or does not answer is replaced."""

    def __init__(self, readers: Mapping[str, Reader], limits: Limits, program: Program | None):
        self.readers, self.limits, self.program = readers, limits, program
        self.asked: Any = None
        self.since = 0.0
        self._begin()

    def _begin(self) -> None:
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, self.readers, self.limits, self.program))
        self.process.start()
        theirs.close()

    def ask(self, what: tuple[str, str] | Input) -> None:
        self.asked, self.since = what, time.monotonic()
        self.pipe.send(what)

    @property
    def late(self) -> bool:
        return time.monotonic() - self.since > self.limits.waiting_s

    def answer(self) -> list[Finding]:
        """Give what was found; a worker that has died, or waits for ever, is a finding itself."""
        left = self.since + self.limits.waiting_s - time.monotonic()
        if not self.pipe.poll(max(0.0, left)):
            found = [Finding("hang", "waits", f"no answer after {self.limits.waiting_s:g} s")]
        else:
            try:
                return self.pipe.recv()
            except EOFError:
                self.process.join()
                found = [Finding("crash", f"exit code {self.process.exitcode}", "the process died of it")]
        self.close()
        self._begin()
        return found

    def close(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


@dataclass(slots=True)
class Campaign:
    """Inputs so far by reader, and findings by reader, kind and place: the smallest input of each."""

    readers: Mapping[str, Reader]
    limits: Limits = field(default_factory=Limits)
    program: Program | None = None
    corpus: Path | None = None  # where the input of each finding is kept
    inputs: Counter[str] = field(default_factory=Counter)
    found: dict[Key, tuple[Finding, Input]] = field(default_factory=dict)
    times: Counter[Key] = field(default_factory=Counter)

    def run(self, until: float, seed: int, jobs: int, most: int | None = None) -> None:
        """Try inputs until the clock says so, or `most` of them."""
        for reader in self.readers.values():
            reader.make(
                random.Random(seed)
            )  # what inputs are made from is made once, before workers are forked
        stream = self._streams(seed, most)
        workers = [Worker(self.readers, self.limits, self.program) for _ in range(jobs)]
        try:
            busy = [worker for worker in workers if self._ask(worker, stream, until)]
            told = time.monotonic()
            while busy:
                ready = wait([worker.pipe for worker in busy], 1.0)
                for worker in [one for one in busy if one.pipe in ready or one.late]:
                    self._note(worker.asked, worker.answer())
                    if not self._ask(worker, stream, until):
                        busy.remove(worker)
                if time.monotonic() - told > LINE_EVERY_S:
                    told = time.monotonic()
                    print(self.line(until), flush=True)
            self._shrink(workers[0])
        finally:
            for worker in workers:
                worker.close()

    def _streams(self, seed: int, most: int | None) -> Iterator[tuple[str, str]]:
        turns = [reader.name for reader in self.readers.values() for _ in range(reader.share)]
        number = 0
        while most is None or number < most:
            yield turns[number % len(turns)], f"{seed}.{number}"
            number += 1

    def _ask(self, worker: Worker, stream: Iterator[tuple[str, str]], until: float) -> bool:
        asked = next(stream, None) if time.monotonic() < until else None
        if asked is not None:
            worker.ask(asked)
        return asked is not None

    def _note(self, asked: tuple[str, str], found: list[Finding]) -> None:
        name, _ = asked
        self.inputs[name] += 1
        for finding in found:
            key = (name, finding.kind, finding.place)
            self.times[key] += 1
            if key not in self.found:
                self._keep(key, finding, made(self.readers, *asked))

    def _shrink(self, worker: Worker) -> None:
        """Make the input of each finding smaller, as long as it shows the same."""
        for key, (finding, one) in list(self.found.items()):
            until = time.monotonic() + SHRINK_S
            queue = candidates(one)
            while time.monotonic() < until and (smaller := next(queue, None)) is not None:
                if self._shows(worker, key, smaller):
                    one, queue = smaller, candidates(smaller)
            self._keep(key, finding, one)

    def _shows(self, worker: Worker, key: Key, one: Input) -> bool:
        worker.ask(one)
        return any(key[1:] == (each.kind, each.place) for each in worker.answer())

    def line(self, until: float) -> str:
        left = max(0.0, until - time.monotonic())
        return f"{sum(self.inputs.values()):>7,} inputs, {len(self.found)} findings, {left / 60:.1f} min left"

    def summary(self) -> str:
        lines = [f"{name:<12}{self.inputs[name]:>8,} inputs" for name in self.readers]
        for key, (finding, one) in sorted(self.found.items(), key=lambda each: each[0]):
            lines += ["", f"{': '.join(key)}   ({self.times[key]} times)", f"  {one.command()[:160]}"]
            lines += [f"  {finding.text.strip()[:240]!r}"]
        total = sum(self.inputs.values())
        return "\n".join([*lines, "", f"{total:,} inputs, {len(self.found)} distinct findings"])

    def _keep(self, key: Key, finding: Finding, one: Input) -> None:
        """Note a finding, and write its input as a file of the corpus."""
        self.found[key] = finding, one
        if self.corpus is not None:
            self.corpus.mkdir(parents=True, exist_ok=True)
            digest = hashlib.sha256("\n".join(key).encode("utf-8", "backslashreplace")).hexdigest()[:8]
            text = saved(one, f"{finding.kind}: {finding.place}".replace(f"{ROOT}/", ""))
            (self.corpus / f"{key[0]}-{digest}.json").write_text(text, encoding="utf-8")


def candidates(one: Input) -> Iterator[Input]:
    """Give smaller variants: documents without a node, bytes without a half, a quarter, ..."""
    for name, content in one.files.items():
        if isinstance(content, Document):
            yield from (one.with_file(name, each) for each in smaller(content))
        else:
            length = len(content) // 2
            while length >= 8 and name != "w.toml":
                for at in range(0, len(content), length):
                    yield one.with_file(name, content[:at] + content[at + length :])
                length //= 2


def main(arguments: list[str] | None = None) -> int:
    """Run the campaign as the options say."""
    parser = argparse.ArgumentParser(description="give luf odd inputs through every reader that it has")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", action="append", choices=[*READERS], help="a reader; may be repeated")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="where the inputs of findings are kept")
    options = parser.parse_args(arguments)
    readers = {name: reader for name, reader in READERS.items() if name in (options.only or READERS)}
    campaign = Campaign(readers, corpus=options.corpus)
    code = None
    with endings_raised():
        try:
            campaign.run(time.monotonic() + options.minutes * 60, options.seed, options.jobs)
        except KeyboardInterrupt as ended:
            code = SIGNALLED + signal_of(ended)
    print(campaign.summary())
    return code or (1 if campaign.found else 0)


if __name__ == "__main__":
    sys.exit(main())
