"""The parts of the fuzzing campaign (tests/campaigns/fuzz.py): odd inputs, the readers that get them, a
forked worker with limits, and the judge of what came of it.
"""
