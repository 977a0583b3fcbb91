"""The paper's tables: what each row reports, what this machine needs to run it, how it is run, and ours beside it."""
