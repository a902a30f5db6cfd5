"""What judges a run that is over, and shares nothing with what it judges: audit, witness, wait-for graph."""
