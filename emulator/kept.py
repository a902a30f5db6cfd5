"""What a command has found so far: kept in its folder as each design ends, shown when all have.

Nothing that fails on the way costs the rest. What cannot be written (the folder, the report, a picture, the
JSON file) is told with its path and why, all others are, and exit code 0 becomes a 2. A command that is ended
while a later design runs keeps the results of the earlier ones, and the folder says what is missing and why.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from emulator.ending import WORDS, signal_of
from emulator.output_file import OutputError, write_output
from emulator.report.text import heading_text, print_report
from emulator.report.timeline import timeline_text
from emulator.result import Comparison, Result, compare, to_json, unique
from emulator.run_folder import RunFolder, command_line, host, new_run_folder, versions, write_comparison
from emulator.sentences import code_of, sentence
from emulator.stopped import RunStopped
from emulator.streams import reader_may_leave, tell
from emulator.verdict import BAD_INPUT, CLEAN, DIRTY, of_comparison

UNDER_WAY, NOT_BEGUN = "it had not ended when this was written", "it was not begun"


class Kept:
    """The results of `designs`, which come one after the other, with `add`.

    `out` and `kind` name the folder, `json` the option of that name, `config` is what is written there.
    """

    def __init__(self, designs: Sequence[str], out: str, kind: str, json: str | None, config: dict[str, Any]):
        self.designs, self.out, self.kind, self.json, self.config = designs, out, kind, json, config
        self.runs: list[Result] = []
        self.folder: RunFolder | None = None
        self.written, self.lost = 0, ""  # results in the folder; why it has not all that it should have
        self.shown = False
        self.failed = False  # was anything else not written?
        self._about: dict[str, Any] = {}

    def add(self, run: Result) -> None:
        """Take the result of the next design, and keep it."""
        self.runs.append(run)
        self._keep(UNDER_WAY)

    def stopped(self, error: BaseException) -> None:
        """Keep what there is when the command is ended before all designs are, or before all is shown; say in
        the exception's notes where it is. It is shown too, unless a user who ends the command finds it there.
        """
        if not self.runs:
            return
        self._note(error)
        if self.written < len(self.designs):
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
            names = " and ".join(run.design for run in self.runs[: self.written])
            error.__notes__ = [f"the result of {names} is kept: luf report {self.folder.final}"]

    def _comparison(self, why: str) -> Comparison:
        """Put together what there is; `why` says what became of the design that runs."""
        self._about = self._about or {"command": command_line(), "versions": versions(), "host": host()}
        missing = dict.fromkeys(unique(self.designs)[len(self.runs) :], NOT_BEGUN)
        if missing:
            missing[next(iter(missing))] = why
        folder = str(self.folder.final) if self.folder else ""
        return compare(self.runs, **self._about, folder=folder, missing=missing)

    def _keep(self, why: str) -> None:
        """Write all results to the folder, which is made for the first; tell it if that cannot be done."""
        try:
            if self.folder:
                write_comparison(self.folder, self._comparison(why), self.config)
            else:
                self._make_folder(why)
            self.lost, self.written = "", len(self.runs)
        except Exception as error:  # noqa: BLE001 (whatever it is: what was found must be shown)
            if not self.lost:
                tell(f"luf: the run's folder cannot be written: {sentence(error)}")
            self.lost = sentence(error)

    def _make_folder(self, why: str) -> None:
        self._comparison(why)  # asks git and the host, which takes longer than to write
        try:
            with new_run_folder(self.out, self.kind) as self.folder:  # the result has its name
                write_comparison(self.folder, self._comparison(why), self.config)
        except BaseException:
            self.folder = None
            raise

    def _show(self, why: str, code: int) -> int:
        """Print the report first; then draw, and write the JSON file, which may fail. `code` is that of the
        verdict if it is not clean.
        """
        comparison = self._comparison(why)
        try:
            with reader_may_leave():
                if self.json == "-":
                    sys.stdout.write(to_json(comparison))
                else:
                    print_report(comparison, sys.stdout, code)
            self.shown = True
        except OutputError as error:
            self._tell_lost(str(error))
        if self.folder and not self.lost:
            self._draw(comparison, self.folder)
        if self.json and self.json != "-":
            try:
                write_output("json", self.json, to_json(comparison))
            except OutputError as error:
                self._tell_lost(str(error))
        code = of_comparison(comparison, code).code
        return BAD_INPUT if code == CLEAN and (self.failed or self.lost) else code

    def _draw(self, comparison: Comparison, folder: RunFolder) -> None:
        try:
            folder.write("timeline.txt", f"{heading_text(comparison)}\n{timeline_text(comparison.runs)}")

            from emulator.report.plot import draw
            from emulator.report.timeline_plot import draw_timeline

            draw(comparison, "picture.png", folder.write)
            draw_timeline(comparison.runs, "timeline.png", folder.write)
        except Exception as error:  # noqa: BLE001 (whatever the library says of it: a picture less must not cost the result)
            self._tell_lost(f"no picture was drawn: {sentence(error)}")

    def _tell_lost(self, what: str) -> None:
        tell(f"luf: {what}")
        self.failed = True


def _why(error: BaseException) -> str:
    """Say in a few words what ended the design that ran."""
    if isinstance(error, KeyboardInterrupt):
        return f"the command was {WORDS[signal_of(error)]}"
    return f"stopped by {error.by}" if isinstance(error, RunStopped) else sentence(error)
