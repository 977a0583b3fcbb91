"""The networks: tokenizer, image and text encoders, masked transformer, baselines, and how they are sampled."""
