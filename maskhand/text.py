"""Captions as token ids: bytes, or CLIP's byte pairs. Without torch, as the data loader computes them.

Both are padded with zeros to one length. Zero is not a byte of a text, and CLIP's sequences end with their largest id.
"""

from __future__ import annotations

import functools
import gzip
import html
import itertools
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskhand.config import TextConfig
from maskhand.errors import MaskhandError

CLIP_VOCABULARY = 49_408
"""Size of CLIP's vocabulary: 512 bytes (inside and at the end of a word), the merges, begin and end of a text."""

_WORDS = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|(?:[^\s\w]|_)+", re.IGNORECASE)


class TextError(MaskhandError, ValueError):
    """A caption or a vocabulary that cannot be used; the message says which and what to do."""


def caption_of(template: str, origin: Mapping[str, Any], key: str) -> str:
    """The recipe's `data.caption` filled with the fields of a sample's origin; TextError when a field is missing."""
    try:
        return template.format(**origin)
    except (KeyError, IndexError) as error:
        known = ", ".join(sorted(origin)) or "none"
        raise TextError(
            f"data.caption {template!r} has a field {error} that the origin of {key} lacks (its fields: {known}); "
            "train on a set that has it, or set data.caption"
        ) from None


def caption_ids(captions: Sequence[str], cfg: TextConfig) -> np.ndarray:
    """(B, cfg.length) int64 ids of the captions, zeros after their end. TextError when one is empty or too long."""
    ids = np.zeros((len(captions), cfg.length), np.int64)
    for row, caption in zip(ids, captions, strict=True):
        tokens = _ids(caption, cfg.encoder, cfg.vocabulary)
        if not caption.strip() or len(tokens) > cfg.length:
            raise TextError(
                f"caption {caption!r}: {len(tokens)} tokens, the encoder reads 1 to {cfg.length} (model.text.length)"
            )
        row[: len(tokens)] = tokens
    return ids


@functools.lru_cache(maxsize=4096)
def _ids(caption: str, encoder: str, vocabulary: str | None) -> tuple[int, ...]:
    if encoder == "bytes":
        return tuple(" ".join(caption.split()).encode())
    if vocabulary is None:
        raise TextError("model.text.vocabulary is null; CLIP's encoder needs its merges file, see `maskhand assets`")
    return ClipVocabulary.read(vocabulary).ids(caption)


class ClipVocabulary:
    """CLIP's lower-cased byte-pair encoding (openai/CLIP `simple_tokenizer.py`, without its repair of broken text)."""

    def __init__(self, merges: Sequence[tuple[str, str]]) -> None:
        letters = _byte_letters()
        symbols = list(letters.values())
        words = [*symbols, *(s + "</w>" for s in symbols), *("".join(m) for m in merges)]
        self._id = {word: number for number, word in enumerate(words)}
        self._rank = {merge: rank for rank, merge in enumerate(merges)}
        self._letters = letters
        self.begin, self.end = len(words), len(words) + 1

    @staticmethod
    @functools.lru_cache(maxsize=2)
    def read(path: str) -> ClipVocabulary:
        """OpenAI's `bpe_simple_vocab_16e6.txt.gz` or Hugging Face's `merges.txt`: a headline, then a pair a line."""
        try:
            data = Path(path).read_bytes()
        except OSError:
            raise TextError(f"model.text.vocabulary: no file {path}; see `maskhand assets`") from None
        try:
            text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8-sig")
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise TextError(f"{path}: not CLIP's vocabulary ({error}); copy it again") from None
        wanted = CLIP_VOCABULARY - 512 - 2
        merges = [tuple(line.split()) for line in text.split("\n")[1 : wanted + 1]]
        if len(merges) != wanted or any(len(merge) != 2 for merge in merges):
            raise TextError(
                f"{path}: expected a headline and at least {wanted} pairs of symbols, one a line; "
                "give CLIP's bpe_simple_vocab_16e6.txt.gz or merges.txt"
            )
        return ClipVocabulary([(first, second) for first, second in merges])

    def ids(self, text: str) -> tuple[int, ...]:
        """Begin token, byte pairs of every word, end token."""
        clean = " ".join(html.unescape(html.unescape(text)).split()).lower()
        pieces = [piece for word in _WORDS.findall(clean) for piece in self._pieces(word)]
        return (self.begin, *(self._id[piece] for piece in pieces), self.end)

    def _pieces(self, word: str) -> list[str]:
        """Merge neighbors, the first rule of the vocabulary first, until no rule applies."""
        parts = [self._letters[byte] for byte in word.encode()]
        parts[-1] += "</w>"
        while len(parts) > 1:
            best = min(itertools.pairwise(parts), key=lambda pair: self._rank.get(pair, len(self._rank)))
            if best not in self._rank:
                break
            merged: list[str] = []
            for part in parts:
                joins = merged and (merged[-1], part) == best
                merged[-1:] = [merged[-1] + part] if joins else [*merged[-1:], part]
            parts = merged
        return parts


def _byte_letters() -> dict[int, str]:
    """Byte -> a visible character: itself where it is printable Latin-1, else one from 256 on, in CLIP's order."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + k) for k, byte in enumerate(others)}
