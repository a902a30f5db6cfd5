"""Write docs/gallery.md: run each public bug of this folder, and show test, change and proof.

    python -m tests.planted.gallery.show                # the page anew; exit code 1 if a bug was not caught
    python -m tests.planted.gallery.show litebox-769    # one of them, on the screen

`bugs.toml` has the story of each, and its change: text of ours that another text takes the place of, as in
the other tables of tests/planted, or a design in a file of its own.
"""

from __future__ import annotations

import difflib
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import wrap

from tests.planted.bugs import ROOT, Bug, bug_of, plant
from tests.planted.hunt import STARTED, unchanged

FOLDER = Path(__file__).parent
PAGE = ROOT / "docs" / "gallery.md"
INTRO = """# A gallery of TLB bugs

Written by `python -m tests.planted.gallery.show`. Bugs that kernels have had in public, each as a
program of a few lines that shows it here. You need not know Linux: a *frame* is a page of memory, a
*translation* says which frame a virtual address means, and each CPU keeps those that it has used in its
TLB. The hardware does not notice when the kernel changes a translation. Whoever takes one away must
have every CPU that may hold it *flush* it, before the frame gets another use, and before the program is
told that the mapping is gone.

Columns of a test are threads, side by side; `p @0` runs on CPU 0 in process p ([litmus.md](litmus.md)
has all). The change is made to a copy of this engine. Without it the test finds nothing, but for the
driver's (CVE-2022-39188): there Linux itself has a window, harmless to others ([coherence.md](coherence.md)).
The proof is the oracle's: it judges every access, and knows nothing of the change.

    python -m tests.planted.gallery.show {first}    # any of them, on the screen
"""
OUTSIDE = """## What cannot be shown here

arm64 waited for a batch of broadcast invalidations by a barrier (DSB) on a CPU that had sent none of
them, and went back to flushing the address space. There is no such barrier here; completing the batch
of the wrong CPU is the same mistake, and one of the [planted bugs](planted.md): `linux-completes-its-
own-batch`.

Merge 706a1ea65e (Linux, 2018) mended page tables that were freed before their flush when memory ran
out: a CPU that walks a table which is freed under it takes for an entry whatever its new owner writes
there. Here only page tables have words, other frames bear one number for the oracle, and CPUs do not
walk ahead of the program. So a table that is freed too early reads as empty, and nobody is misled.
"""


@dataclass(frozen=True, slots=True)
class Exhibit:
    """A bug of the gallery. `bug` is None if it is a design of its own (`design`); `run` are options of
    `luf run`.
    """

    name: str
    title: str
    where: str
    link: str
    story: str
    design: str = "linux"
    run: tuple[str, ...] = ()
    bug: Bug | None = field(default=None)

    @property
    def litmus(self) -> Path:
        """The file of its test."""
        return FOLDER / f"{self.name}.litmus"

    def proof(self, *, planted: bool = True) -> tuple[int, str]:
        """Run its test, with the bug or without; gives the exit code, and the proof if there is one."""
        design = self.design if planted else self.design.replace("overlooked", "interrupts")
        command = ["run", design, "--workload", str(self.litmus), "--leases", "1", *self.run]
        with tempfile.TemporaryDirectory(prefix="luf-gallery-") as place:
            folder, hashes = ROOT, Path(place, "hashes.json")
            hashes.write_text("{}", encoding="utf-8")
            if self.bug and planted:
                folder = plant(self.bug, Path(place, "copy"))
                hashes.write_text(json.dumps(unchanged(self.bug, folder)), encoding="utf-8")
            ran = subprocess.run(
                [sys.executable, "-P", str(STARTED), str(hashes), *command], cwd=place,
                env=os.environ | {"PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False,
            )  # fmt: skip
        return ran.returncode, _proof_of(ran.stdout)


def exhibits() -> dict[str, Exhibit]:
    """Read the table."""
    found = {}
    for name, entry in tomllib.loads((FOLDER / "bugs.toml").read_text(encoding="utf-8")).items():
        told = {key: entry[key].strip() for key in ("title", "where", "link")}
        told["story"] = "\n".join(wrap(entry["story"], 104))
        design = entry.get("design", "linux")
        if design.startswith("."):
            design = str(FOLDER / design)
        bug = bug_of(name, entry) if "file" in entry else None
        found[name] = Exhibit(name, **told, design=design, run=tuple(entry.get("run", ())), bug=bug)
    return found


def section(one: Exhibit, proof: str) -> str:
    """Give its part of the page."""
    parts = [f"## {one.title}", f"{one.where}:\n<{one.link}>", one.story, "The test:"]
    parts += [f"```\n{one.litmus.read_text(encoding='utf-8').rstrip()}\n```"]
    if one.bug:
        parts += [f"The bug, put in: {one.bug.wrong}.", f"```diff\n{_difference(one.bug)}```"]
    else:
        file = Path(one.design.partition(":")[0])
        parts += [f"The bug is a design of its own, [{file.name}](../{file.relative_to(ROOT)})."]
    return "\n\n".join([*parts, "The proof:", f"```\n{proof}\n```", ""])


def _difference(bug: Bug) -> str:
    """Give what the bug changes, as a patch with little around it, and without numbers of lines."""
    lines: list[str] = []
    for file, text in bug.sources().items():
        before = (ROOT / file).read_text(encoding="utf-8")
        lines += difflib.unified_diff(
            before.splitlines(keepends=True), text.splitlines(keepends=True), file, file, n=1
        )
    return "".join("@@\n" if line.startswith("@@") else line for line in lines)


def _proof_of(screen: str) -> str:
    """Cut the first proof out of what a run has said."""
    _, mark, rest = screen.partition("VIOLATION  ")
    return (mark + rest).partition("\n\n")[0].replace(f"{FOLDER}{os.sep}", "").rstrip()


def main(names: list[str]) -> int:
    """Show these, or write the page with all."""
    known, missed, parts = exhibits(), [], []
    for name in names or known:
        code, proof = known[name].proof()
        missed += [] if code == 1 and proof else [name]
        parts.append(section(known[name], proof))
    if names:
        print("\n".join(parts))
    else:
        PAGE.write_text("\n".join([INTRO.format(first=next(iter(known))), *parts, OUTSIDE]), encoding="utf-8")
    if missed:
        print(f"not caught: {', '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
