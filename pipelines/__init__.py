"""Prefect flows: short modules whose tasks each call one library function."""
