"""Which source made a result: tags of tracked runs, and the key of cached steps."""

from __future__ import annotations

import functools
import hashlib
import subprocess
from pathlib import Path


@functools.cache
def code_digest() -> str:
    """12 hex digits over the library's source files."""
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


@functools.cache
def git_sha() -> str:
    """The commit of the source tree, with `-dirty` when files differ from it; `unknown` outside a checkout."""
    where = Path(__file__).parent
    try:
        call = functools.partial(subprocess.run, cwd=where, capture_output=True, text=True, check=True, timeout=10)
        sha = call(["git", "rev-parse", "HEAD"]).stdout.strip()
        return sha + ("-dirty" if call(["git", "status", "--porcelain", "-uno"]).stdout.strip() else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
