"""Ray: map functions over shards, train on workers. No other package imports Ray."""
