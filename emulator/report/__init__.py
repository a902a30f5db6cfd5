"""What a result looks like: screens, pictures, the formats of /proc and perf, progress."""
