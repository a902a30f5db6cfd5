"""LUF as posted (v12), with its known holes: `luf_v12.py` is the design."""
