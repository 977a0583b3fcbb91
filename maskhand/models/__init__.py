"""The networks of the method, one idea a file."""
