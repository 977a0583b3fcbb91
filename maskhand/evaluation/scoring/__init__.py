"""Score prediction files as the official evaluators do, without a model: `maskhand score BENCHMARK --gt --pred`."""
