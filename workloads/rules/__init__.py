"""The rules of a program of rows: `whole.validate` applies them all.

Lives here: how large a workload may be (`sizes`), what a row may say by itself (`one_row`), what rows of
several threads say together (`rounds`, `mappings`) and of several processes (`flags`), and how an error names
its row (`place`).
"""
