"""Who flushes when many allocators reach the same pending shootdown; `answers.py` lists the answers."""
