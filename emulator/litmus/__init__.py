"""Running litmus tests: the machine of each, the verdict of a run, the command."""
