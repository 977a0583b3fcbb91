"""What a Prefect server's log says about its end, in a few words."""

from __future__ import annotations

import re
from pathlib import Path

from maskhand.errors import without_passwords

_ERROR = r"[\w.]*(?:Error|Exception)"
_FOR_PROGRAMMERS = rf"^{_ERROR}: *|\({_ERROR}\) *|\[Errno \d+\] *"


def reason_in(log: Path, begin: int = 0) -> str:
    """What a server's log says since byte `begin`: the last line that names an error, else the last one."""
    text = log.read_bytes()[begin:].decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(rf"{_ERROR}\b|.*\[Errno", line)]
    said = without_passwords((errors or lines or ["it says nothing"])[-1])
    return re.sub(_FOR_PROGRAMMERS, "", said)[:200]
