"""Subcommands of the `maskhand` command, a module per topic; `maskhand/cli.py` joins them."""
