"""Many runs that differ in what is varied: planned, carried side by side, kept one by one in a journal,
and put together in the end.
"""
