"""Put a machine together, run it, judge it, report on it: the command line and the Python API.

Lives here: machine descriptions (`machine`, `machines/*.toml`, `watermarks`), results (`result`, `run_folder`, `formats`,
`report`, `plot`, `progress`) and the command `luf` (`cli`). May import every other room; no room may import this one.
"""
