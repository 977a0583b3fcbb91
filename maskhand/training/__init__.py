"""The tokenizer and transformer loops, their losses, engine and checkpoints."""
