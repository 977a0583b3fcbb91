"""Readers of file formats that several layouts share; none of them knows a dataset."""
