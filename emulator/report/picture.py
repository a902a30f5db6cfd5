"""Have matplotlib draw into a file, as all pictures of luf are drawn.

What it keeps for itself, a list of the host's fonts, goes into our cache, not into the user's home.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cpus.cache_place import cache_root
from emulator.output_file import write_atomically
from inputs.text import on_a_line

if not os.environ.get("MPLCONFIGDIR"):  # read when it is imported
    os.environ["MPLCONFIGDIR"] = str(cache_root() / "matplotlib")

import matplotlib
from matplotlib.figure import Figure

ENDINGS = (".png", ".svg", ".pdf")
STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "luf",
    "text.parse_math": False,  # a name with two dollar signs is no formula
}
LABEL = 40  # characters of a name: longer ones leave no room for what they name
LEGEND_ROWS = 20

Write = Callable[[str, bytes], None]


@contextmanager
def picture(
    file: str | Path,
    inches: tuple[float, float],
    *,
    dpi: int = 120,
    option: str = "picture",
    write: Write = write_atomically,
) -> Iterator[Any]:
    """Give a figure to draw on, which is then written whole, by `write`. Raises ValueError for an ending that
    no picture has, OSError with the path.
    """
    path = Path(file)
    if path.suffix not in ENDINGS:
        raise ValueError(f"'{option}' must end in .png, .svg or .pdf (got {path.name!r})")
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a font lacks a letter of somebody's name, or a panel room
        figure = Figure(figsize=inches, layout="constrained")
        yield figure
        drawn = io.BytesIO()
        undated = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(drawn, format=path.suffix[1:], dpi=dpi, metadata=undated)
    write(str(file), drawn.getvalue())


def label(name: str) -> str:
    """Give a name as there is room for it; a legend would leave out one that begins with an underscore."""
    return " " * name.startswith("_") + on_a_line(name, LABEL)


def room_above(top: float, times: float, labels: int, columns: int) -> float:
    """Give the end of a logarithmic axis whose legend stands above the highest point: `times` as high for
    each of its rows.
    """
    return float(top) * times ** min(-(-labels // columns), LEGEND_ROWS)
