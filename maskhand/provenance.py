"""Which source made a result: tags of tracked runs, and the key of cached steps."""

from __future__ import annotations

import functools
import hashlib
import os
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
    own = Path(__file__)
    others = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # a hook's, of whatever repository it runs for
    call = functools.partial(
        subprocess.run, cwd=own.parent, capture_output=True, text=True, check=True, timeout=10,
        env={name: value for name, value in os.environ.items() if name not in others},
    )  # fmt: skip
    try:
        call(["git", "ls-files", "--error-unmatch", own.name])  # not where it is installed below another checkout
        sha = call(["git", "rev-parse", "HEAD"]).stdout.strip()
        return sha + ("-dirty" if call(["git", "status", "--porcelain", "-uno"]).stdout.strip() else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
