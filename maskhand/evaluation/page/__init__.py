"""The report of an evaluation: one HTML file without outside resources."""
