"""The comparison with a recorded Linux kernel: `luf golden`. The shipped recording is in `6.12/`."""
