"""LUF (Lazy Unmap Flush), one idea a file; `luf.py` is the design, `sync.py` lists who may flush when."""
