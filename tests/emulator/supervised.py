"""A program with a supervised machine of 8 CPUs that never finishes, to be ended by signals. Its first line
of output is JSON.

    python -m tests.emulator.supervised [half-written-file]
"""

import json
import sys
from pathlib import Path

from benchmarks.storm import set_storm, shots_done, small_ram, storm
from emulator.streams import leave_at_once
from emulator.supervisor import Interrupted, RunStopped, Supervisor

FOREVER = 1 << 40


def main() -> int:
    ram = small_ram(8)
    set_storm(ram, shots=FOREVER, targets=3, gap=100)
    try:
        with Supervisor(ram, storm, label="endless") as machine:
            if len(sys.argv) > 1:
                machine.remove_if_killed(sys.argv[1])
                Path(sys.argv[1]).write_text("half")
            machine.start()
            facts = {
                "folder": machine.folder,
                "cpus": [p.pid for p in machine.processes],
                "janitor": machine.janitor.pid,
            }
            print(json.dumps(facts), flush=True)
            machine.watch(shots_done)
    except (RunStopped, Interrupted) as error:
        print(error, file=sys.stderr)
        leave_at_once(getattr(error, "exit_code", 3))  # as the command line does
    return 0


if __name__ == "__main__":
    sys.exit(main())
