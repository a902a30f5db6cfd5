"""Measure the emulator itself: interrupts, start-up, accesses, fault and reclaim. `python -m benchmarks` runs
all of it.

Each module has `run(quick) -> list of rows`; a row is a dict with `benchmark`, what was varied, and what was
measured.
"""
