"""The bytes of a tar -> keys and members, grouped as WebDataset groups them.

`tarfile` and WebDataset spend a quarter of a millisecond per sample on a few headers; a training loader has about as
long for a whole sample. The tars of shards are simple: regular files with short names, ordered by key.
"""

from __future__ import annotations

import io

from maskhand.shards.codec import Members
from maskhand.shards.layout import ShardError

_BLOCK, _REGULAR = 512, ord("0")
_NAME, _SIZE, _KIND, _FORMAT, _FOLDER = slice(0, 100), slice(124, 135), 156, slice(257, 262), 345
"""Fields of a header: the name, the size in octal digits, the kind of file, the format, the folder's first letter."""


def decode_tar(data: bytes, uri: str) -> list[tuple[str, Members]]:
    """Keys and members in the tar's order. A tar cut inside a member raises ShardError; one cut between two members is
    not noticed, which is why every reader compares counts with the manifest."""
    samples = plain_tar(data)
    return webdataset_tar(data, uri) if samples is None else samples


def plain_tar(data: bytes) -> list[tuple[str, Members]] | None:
    """None where something is not as the writer of shards leaves it. Checksums of headers are not looked at."""
    found = plain_places(data)
    if found is None:
        return None
    return [(key, {name: data[place] for name, place in places.items()}) for key, places in found]


def plain_places(data: bytes) -> list[tuple[str, dict[str, slice]]] | None:
    """Keys and members as `plain_tar` finds them, but the place of each member in the tar instead of its bytes."""
    samples: list[tuple[str, dict[str, slice]]] = []
    place, current, members = 0, "", dict[str, slice]()
    while place + _BLOCK <= len(data) and data[place]:
        header = data[place : place + _BLOCK]
        key, _, extension = header[_NAME].rstrip(b"\0").decode("latin1").partition(".")
        size = header[_SIZE]
        plain = header[_KIND] == _REGULAR and header[_FORMAT] == b"ustar" and not header[_FOLDER]
        if not plain or "/" in key or not extension.islower() or not size.isdigit():
            return None
        begin = place + _BLOCK
        end = begin + int(size, 8)
        if key != current:
            current, members = key, {}
            samples.append((key, members))
        if end > len(data) or extension in members:
            return None
        members[extension] = slice(begin, end)
        place = end + -end % _BLOCK
    return samples


def webdataset_tar(data: bytes, uri: str) -> list[tuple[str, Members]]:
    """WebDataset's reading of any tar; raises ShardError."""
    # webdataset imports torch; whoever only reads manifests should not wait for that.
    from webdataset.tariterators import group_by_keys, tar_file_expander

    try:
        return [
            (group["__key__"], {name: member for name, member in group.items() if not name.startswith("__")})
            for group in group_by_keys(tar_file_expander([{"url": uri, "stream": io.BytesIO(data)}]))
        ]
    except Exception as error:
        raise ShardError(f"{uri}: not a whole tar ({error}); delete it and build this part again") from error
