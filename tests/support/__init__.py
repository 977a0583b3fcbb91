"""Helpers that several test suites share: sets, models, batches, official evaluators, servers, layout writers."""
