"""Shards -> HandBatch: mixture, crop, augmentation, collation."""
