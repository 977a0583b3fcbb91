"""Readers of large or foreign files, a few samples at a time: every error is a sentence."""
