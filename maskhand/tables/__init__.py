"""The paper's tables as data: what each row reports, what this machine needs to run it, and ours beside it."""
