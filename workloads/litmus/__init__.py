"""Litmus tests: a few calls of a few threads, side by side, an outcome that is forbidden, and what must have
happened for the test to mean anything.

Lives here: the format (`sheet`: heads and columns; `expression`: numbers; `condition`: counters), what a
file is made into (`test`: a workload, and a machine as plain keys), families of tests (`family`), and the
tests that ship (`shelf`, tests/*.litmus).
May not live here: running them (emulator/litmus).
"""
