"""Start luf in a copy of the sources that has a planted bug: `python -P started.py HASHES stress linux ...`.

HASHES is a JSON object, file -> hash, of the modules whose compiled code is what it was (affected.py): they
are loaded from the cache as what they were. It runs outside of our packages, so that the copy's are imported.
"""

import json
import runpy
import sys
from pathlib import Path


def main() -> None:
    """Say what has not changed before any kernel is imported, then be `python -m emulator`."""
    from cpus import source_hash

    source_hash._hashes.update(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    del sys.argv[1]
    runpy.run_module("emulator", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
