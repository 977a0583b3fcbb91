"""What is in a shard set: statistics of every label in one pass over the tars, and a contact sheet."""
