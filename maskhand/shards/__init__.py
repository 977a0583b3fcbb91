"""Byte-reproducible WebDataset shards: plan, write, verify, read."""
