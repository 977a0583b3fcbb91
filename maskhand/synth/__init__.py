"""The embedded default: pose prior, renderer and tiny datasets in the official layouts."""
