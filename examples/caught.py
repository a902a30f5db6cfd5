"""Caught: a design that is wrong, and the oracle's proof.

Covers:
- Violations of a run, as data and as text
- Repeating a run exactly: one lease and the same seed

Scenario:
  The design `none` never flushes what reclaim unmaps. Sooner or later a frame is handed to somebody else
  while a CPU still has the old translation, and reads through it. The proof tells the frame's story. A second
  run with the same seed fails at the same access, which is what one needs to find the bug.
"""

from emulator import load_machine, run_design
from emulator.report.proof import violation_text

machine = load_machine("guest-8cpu", scale=16)


def run():
    """Run it once, in controlled mode."""
    return run_design("none", machine, "tiny8:scale=1", tokens=1, leases=1, seed=1)


first, again = run(), run()
proof, same = first.violations[0], again.violations[0]
print(violation_text({"design": first.design, "seed": first.seed, **proof}, proof["events"]))
print(
    "the second run fails at the same access:",
    all(proof[name] == same[name] for name in ("cpu", "t_ns", "address", "frame", "found")),
)
