"""Data loading: shards -> HandBatch, with crops, augmentation and collation."""
