"""Subcommands of the `maskhand` command, one module per topic; `maskhand/cli.py` combines them."""
