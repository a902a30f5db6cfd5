"""Many short runs instead of one long one: processes that are used again, workers on all host cores, and what
looks for runs in which a design fails. What a run is and how it is judged lies elsewhere.
"""
