"""The parts of the campaign of faults (tests/campaigns/faults.py): a command that is watched from outside,
what is done to it and when, and the look at what it has left.
"""
