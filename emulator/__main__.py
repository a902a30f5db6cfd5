"""Start the command `luf`, so that Ctrl-C is answered while it is still being imported; `python -m emulator`
is the same.
"""

from __future__ import annotations

import os
import sys

INTERRUPTED = 130


def program() -> int:
    """Import and run the command line; returns its exit code."""
    # numpy's threads are of no use here, and where a process may have no more of them, they interrupt it
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        from emulator.cli import program as command

        return command()
    except KeyboardInterrupt:  # before the command line could answer: it has nothing to tidy up yet
        sys.stderr.write("luf: interrupted; nothing was written\n")
        sys.stderr.flush()
        os._exit(INTERRUPTED)


if __name__ == "__main__":
    sys.exit(program())
