"""The short digest by which data, cards, recipes and models are told apart."""

from __future__ import annotations

import hashlib


def short_digest(content: bytes | str) -> str:
    """First 12 hex digits of the sha256 of bytes, or of a text in UTF-8."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:12]
