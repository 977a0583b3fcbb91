"""One function per step of the pipeline: what a subcommand and a task of the flows both call.

A step joins the parts that must not know each other (Ray sessions, trackers, storage) and returns a `Receipt`.
"""
