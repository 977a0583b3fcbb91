"""Metrics by the official protocols, and the runner over a held-out set."""
