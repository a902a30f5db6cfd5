"""A run that can be had again: a file that says all of it, and what it showed. How a run is made smaller lies
in emulator/stress/.
"""
