"""Prefect flows: each a page of tasks that call one library function."""
