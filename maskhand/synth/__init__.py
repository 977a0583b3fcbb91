"""The embedded default: pose prior, renderer and tiny data sets in the official layouts."""
