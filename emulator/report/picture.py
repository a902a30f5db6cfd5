"""Have matplotlib draw into a file, as all pictures of luf are drawn.

What it keeps for itself, a list of the host's fonts, goes into our cache, not into the user's home.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cpus.cache_place import cache_root
from emulator.output_file import write_atomically

if not os.environ.get("MPLCONFIGDIR"):  # read when it is imported
    os.environ["MPLCONFIGDIR"] = str(cache_root() / "matplotlib")

import matplotlib
from matplotlib.figure import Figure

ENDINGS = (".png", ".svg", ".pdf")
STYLE: Any = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "luf"}


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
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=inches, layout="constrained")
        yield figure
        drawn = io.BytesIO()
        undated = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(drawn, format=path.suffix[1:], dpi=dpi, metadata=undated)
    write(str(file), drawn.getvalue())
