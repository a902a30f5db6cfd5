"""Several runs of each design, and what they say together: how far runs differ, and whether designs do."""
