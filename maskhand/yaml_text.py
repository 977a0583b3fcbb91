"""YAML that people write (recipes, cards, values of `--set`): what it says is what is read, or an error."""

from __future__ import annotations

import re
from typing import Any

import yaml

from maskhand.errors import MaskhandError


class YamlError(MaskhandError, ValueError):
    """A text that is not usable YAML. The message is the reason alone; whoever reads the file names it."""


def read_yaml(text: bytes | str) -> Any:
    """The value of a text. Raises YamlError, also for a key that is there twice, of which a parser takes the last."""
    letters = text if isinstance(text, bytes) else text.encode("utf-8", "replace")
    opened, closed = letters.count(b"[") + letters.count(b"{"), letters.count(b"]") + letters.count(b"}")
    if opened - closed > _MOST_OPEN:  # for which the parser takes minutes
        raise YamlError(f"not valid YAML ({opened - closed} brackets are not closed)")
    try:
        return yaml.load(text, Loader=_Loader)
    except _RepeatedKeyError as error:
        raise YamlError(f"ambiguous YAML ({' '.join(str(error).split())})") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # the second for a date that does not exist
        raise YamlError(f"not valid YAML ({' '.join(str(error).split())})") from None


_MOST_OPEN = 200
_INTEGER = "tag:yaml.org,2002:int"


class _RepeatedKeyError(yaml.constructor.ConstructorError):
    """A key is there twice."""


class _Loader(yaml.SafeLoader):
    """Plain values, without two readings of YAML 1.1 that nobody means: 12:30 as 750, and 010 as 8."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # PyYAML looks here for the class's own
        letter: [pair for pair in pairs if pair[0] != _INTEGER]
        for letter, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise _RepeatedKeyError(None, None, f"the key {key.value!r} is there twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(_INTEGER, re.compile(r"([-+]?(0|[1-9][0-9_]*)|0x[0-9a-fA-F_]+)$"), [*"-+0123456789"])
