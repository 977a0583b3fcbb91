"""The only place that knows Ray: map over shards, train on workers."""
