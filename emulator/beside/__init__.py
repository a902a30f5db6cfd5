"""Stored results beside each other: which of their runs go together, what differs between them."""
