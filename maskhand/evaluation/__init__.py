"""Measure a model on held-out shard sets: runner, errors of single hands, baseline, report."""
