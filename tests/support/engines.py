"""Compile the plain engine and the one with scheduling points before anything else, side by side: each is a
minute's work or two for one core, and is then in the cache of all.
"""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context


def compile_engines() -> None:
    """Have both in the cache. Raises what compiling them raises."""
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        for done in [pool.submit(compile_engine, points) for points in (True, False)]:
            done.result()


def compile_engine(points: bool) -> None:
    """Compile one of them, by running a small test on it."""
    from emulator.litmus.run import experiment_of
    from emulator.schedule import Schedule
    from workloads.litmus.shelf import litmus_test

    one = experiment_of(litmus_test("munmap"), "linux")
    replace(one, schedule=Schedule() if points else None).run()
