"""Public TLB bugs of any kernel: each as a change of this engine, or a design, a litmus test, and the proof
that the oracle prints. docs/gallery.md shows them.
"""
