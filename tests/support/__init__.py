"""What several test suites share: sets, models and batches for tests, official evaluators, servers, layout writers."""
