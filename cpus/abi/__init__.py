"""What a program may ask of the machine, as plain numbers and tables: the one part of `cpus` that `workloads`
knows.

Lives here: numbers that stand in rows of programs, in page-table rights and in the kernel alike, each once.
Imports nothing but the standard library.
"""
