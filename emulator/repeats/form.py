"""How repeated runs are written, shown, drawn and judged, for who keeps results (emulator/forms.py)."""

from __future__ import annotations

from typing import Any

from emulator.forms import Form
from emulator.repeats.result import Repeats, repeats
from emulator.repeats.text import print_repeats
from emulator.run_folder import RunFolder, write_repeats
from emulator.verdict import of_repeats


def _picture(*given: Any) -> None:
    from emulator.repeats.plot import draw_repeats

    draw_repeats(*given)


def _draw(found: Repeats, folder: RunFolder) -> None:
    _picture(found, "picture.png", folder.write)


SEVERAL = Form(repeats, write_repeats, print_repeats, _picture, _draw, of_repeats)
