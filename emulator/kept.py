"""What a command has found so far: kept in its folder as each run ends, shown when all have.

Nothing that fails on the way costs the rest. What cannot be written (the folder, the report, a picture, the
JSON file) is told with its path and why, all others are, and exit code 0 becomes a 2. A command that is ended
in a later run keeps the results of the earlier ones, and the folder says what is missing and why.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from emulator.ending import WORDS, signal_of
from emulator.forms import Form
from emulator.output_file import OutputError, write_output
from emulator.result import Result, to_json
from emulator.run_folder import RunFolder, command_line, host, new_run_folder, versions
from emulator.sentences import code_of, sentence
from emulator.stopped import RunStopped
from emulator.streams import reader_may_leave, tell
from emulator.verdict import BAD_INPUT, CLEAN, DIRTY

NAMES_SHOWN = 3
UNDER_WAY, NOT_BEGUN = "it had not ended when this was written", "it was not begun"


class Planned(NamedTuple):
    """A run that is to come: what it is called, and in which column its result stands."""

    name: str
    column: str


class Kept:
    """The results of planned runs, which come one after the other, with `add`.

    `out` and `kind` name the folder, `json` the option of that name, `config` is what is written there.
    """

    def __init__(
        self, form: Form, planned: Sequence[Planned], out: str, kind: str, json: str | None,
        config: dict[str, Any],
    ):  # fmt: skip
        self.form, self.planned = form, planned
        self.out, self.kind, self.json, self.config = out, kind, json, config
        self.runs: list[Result] = []
        self.folder: RunFolder | None = None
        self.written, self.lost = 0, ""  # results in the folder; why it has not all that it should have
        self.shown = False
        self.failed = False  # was anything else not written?
        self._about: dict[str, Any] = {}

    def add(self, run: Result) -> None:
        """Take the result of the next run, and keep it."""
        self.runs.append(run)
        self._keep(UNDER_WAY)

    def stopped(self, error: BaseException) -> None:
        """Keep what there is when the command is ended before all runs are, or before all is shown; say in
        the exception's notes where it is. It is shown too, unless a user who ends the command finds it there.
        """
        if not self.runs:
            return
        self._note(error)
        if self.written < len(self.planned):
            self._keep(_why(error))
            self._note(error)
        if not self.shown and not (isinstance(error, KeyboardInterrupt) and self._is_kept()):
            self._show(_why(error), code_of(error))

    def finish(self) -> int:
        """Show everything; returns the exit code."""
        return self._show("", DIRTY)

    def _is_kept(self) -> bool:
        return self.folder is not None and not self.lost

    def _note(self, error: BaseException) -> None:
        """Say where the results are."""
        if self.folder and self.written:
            kept = [one.name for one in self.planned[: self.written]]
            names = " and ".join(kept) if len(kept) <= NAMES_SHOWN else f"{len(kept)} runs"
            error.__notes__ = [f"the result of {names} is kept: luf report {self.folder.final}"]

    def _gathered(self, why: str) -> Any:
        """Put together what there is; `why` says what became of the run that was under way."""
        self._about = self._about or {"command": command_line(), "versions": versions(), "host": host()}
        missing = dict.fromkeys((one.name for one in self.planned[len(self.runs) :]), NOT_BEGUN)
        if missing:
            missing[next(iter(missing))] = why
        folder = str(self.folder.final) if self.folder else ""
        columns = [one.column for one in self.planned[: len(self.runs)]]
        return self.form.gather(self.runs, columns, **self._about, folder=folder, missing=missing)

    def _keep(self, why: str) -> None:
        """Write all results to the folder, which is made for the first; tell it if that cannot be done."""
        try:
            if self.folder:
                self.form.write(self.folder, self._gathered(why), self.config)
            else:
                self._make_folder(why)
            self.lost, self.written = "", len(self.runs)
        except Exception as error:  # noqa: BLE001 (whatever it is: what was found must be shown)
            if not self.lost:
                tell(f"luf: the run's folder cannot be written: {sentence(error)}")
            self.lost = sentence(error)

    def _make_folder(self, why: str) -> None:
        self._gathered(why)  # asks git and the host, which takes longer than to write
        try:
            with new_run_folder(self.out, self.kind) as self.folder:  # the result has its name
                self.form.write(self.folder, self._gathered(why), self.config)
        except BaseException:
            self.folder = None
            raise

    def _show(self, why: str, code: int) -> int:
        """Print the report first; then draw, and write the JSON file, which may fail. `code` is that of the
        verdict if it is not clean.
        """
        found = self._gathered(why)
        try:
            with reader_may_leave():
                if self.json == "-":
                    sys.stdout.write(to_json(found))
                else:
                    self.form.show(found, sys.stdout, code)
            self.shown = True
        except OutputError as error:
            self._tell_lost(str(error))
        if self.folder and not self.lost:
            self._draw(found, self.folder)
        if self.json and self.json != "-":
            try:
                write_output("json", self.json, to_json(found))
            except OutputError as error:
                self._tell_lost(str(error))
        code = self.form.verdict(found, code).code
        return BAD_INPUT if code == CLEAN and (self.failed or self.lost) else code

    def _draw(self, found: Any, folder: RunFolder) -> None:
        try:
            self.form.draw(found, folder)
        except Exception as error:  # noqa: BLE001 (whatever the library says of it: a picture less must not cost the result)
            self._tell_lost(f"no picture was drawn: {sentence(error)}")

    def _tell_lost(self, what: str) -> None:
        tell(f"luf: {what}")
        self.failed = True


def _why(error: BaseException) -> str:
    """Say in a few words what ended the run."""
    if isinstance(error, KeyboardInterrupt):
        return f"the command was {WORDS[signal_of(error)]}"
    return f"stopped by {error.by}" if isinstance(error, RunStopped) else sentence(error)
