"""A run as a trace for ui.perfetto.dev (docs/trace.md): taken out of the CPUs' rings while they run, and
written in Perfetto's format. What is recorded is said in cpus/spans.py.
"""
