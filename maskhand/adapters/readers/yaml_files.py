"""YAML files of datasets: plain values only, and the tuples that Python programs leave behind in them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from maskhand import storage
from maskhand.adapters.base import RawDataError

# The C parser is ten times faster; some builds of PyYAML lack it.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]
    """Safe loading that also reads `!!python/tuple`, as a list; every other Python tag is refused."""


_Loader.add_constructor("tag:yaml.org,2002:python/tuple", lambda loader, node: loader.construct_sequence(node))


@dataclass(frozen=True)
class YamlFile:
    value: Mapping[str, Any]
    sha256: str


def read_yaml(uri: str) -> YamlFile:
    """A mapping from a YAML file; RawDataError when it is cut, holds Python objects or is not a mapping."""
    data = storage.read_bytes(uri)
    try:
        value = yaml.load(data, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RawDataError(f"{uri}: not usable YAML ({' '.join(str(error).split())}); copy it again") from None
    if not isinstance(value, dict):
        raise RawDataError(f"{uri}: expected a mapping of names, found {type(value).__name__}; copy it again")
    return YamlFile(value, hashlib.sha256(data).hexdigest())
