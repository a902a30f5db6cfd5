"""What judges a run that is over, and shares nothing with what it judges: audit, witnesses, the wait-for graph."""
