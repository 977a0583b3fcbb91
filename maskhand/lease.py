"""One process at a time on a folder of an object store, which has no locks: a claim there that its holder renews.

Needs nothing of the store but that a listing shows what was written before it, as S3's does, and compares no clocks.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import random
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from maskhand import storage
from maskhand.lock import LockedError, described, held, this_process
from maskhand.storage import StorageError

Facts = dict[str, object]
"""Who holds a claim, and `renewals`, how often it was renewed: a time would be of a clock that may be wrong."""
RENEWED_S = 10.0
"""How often a holder renews its claim."""
STALE_S = 60.0
"""A claim that is not renewed for so long is of a process that was killed: whoever watched it so long removes it."""
_WATCH_S = 1.0
_ATTEMPTS = 8
"""Of processes that ask at the same moment, and step back from each other."""


@contextlib.contextmanager
def leased(uri: str, what: str) -> Iterator[str | None]:
    """A context that one process at a time is in, of all machines; it is given its claim, see `ensure_held`.

    uri: the folder that nobody else shall write into. For a local one this is `lock.held` in the folder above, without
    a claim. The claim of a process that was killed is free after `STALE_S`, on the same machine at once. Raises
    LockedError, which says who is at it, and StorageError.
    """
    if not storage.is_remote(uri):
        folder = Path(uri)
        with held(folder.parent, folder.name, what):
            yield None
        return
    facts = this_process() | {"machine": _machine()}
    claim = _claimed(uri, facts, what)
    ended = threading.Event()
    renewal = threading.Thread(target=_renew, args=(claim, facts, ended), name="maskhand-lease", daemon=True)
    renewal.start()
    try:
        yield claim
    finally:
        ended.set()
        renewal.join(RENEWED_S)
        with contextlib.suppress(StorageError):
            storage.delete(claim)


def ensure_held(claim: str | None, what: str) -> None:
    """Raises LockedError where the claim was taken away: this process stood still for `STALE_S`. StorageError."""
    if claim is not None and not storage.exists(claim):
        raise LockedError(f"{what}: another process has taken over, as this one gave no sign of life for {STALE_S:g} s")


def _claimed(uri: str, facts: Facts, what: str) -> str:
    folder = storage.join(uri, "lease")
    mine = storage.join(folder, f"{secrets.token_hex(8)}.json")
    for _ in range(_ATTEMPTS):
        for other in storage.list_uris(folder):
            _outlive(other, what)
        storage.write_json_atomic(mine, facts | {"renewals": 0})
        if storage.list_uris(folder) == [mine]:
            return mine
        storage.delete(mine)
        time.sleep(random.uniform(0, 2 * _WATCH_S))
    raise LockedError(f"{what}: other processes ask for it at the same time; try again")


def _outlive(claim: str, what: str) -> None:
    """Return when the claim is gone, or can be removed. Raises LockedError as soon as its holder renews it."""
    first = _read(claim)
    if first is None:
        return
    since_s = time.monotonic()
    if not _has_ended(first):
        logging.getLogger(__name__).warning(
            f"{what}: {described(first)} was at it; whether it still is shows within {STALE_S:g} s"
        )
        while time.monotonic() - since_s < STALE_S:
            time.sleep(_WATCH_S)
            now = _read(claim)
            if now is None:
                return
            if now != first:
                raise LockedError(f"{what}: {described(now)} is at it; wait for its end, or stop it")
    storage.delete(claim)


def _has_ended(facts: Facts) -> bool:
    """Is this the claim of a process of this machine that is not there any more?"""
    if facts.get("machine") == _machine() != "":
        try:
            os.kill(int(str(facts["process"])), 0)
        except ProcessLookupError:
            return True
        except (OSError, ValueError, KeyError):
            return False
    return False


def _renew(claim: str, facts: Facts, ended: threading.Event) -> None:
    """Until the block ends, or the claim is another's: then nothing of this run is written any more."""
    for renewals in itertools.count(1):
        if ended.wait(RENEWED_S):
            return
        with contextlib.suppress(StorageError):  # a store that does not answer has no news for others either
            if claim not in (present := storage.list_uris(claim.rpartition("/")[0])):
                return
            if len(present) > 1:
                storage.delete(claim)
                return
            storage.write_json_atomic(claim, facts | {"renewals": renewals})


def _read(claim: str) -> Facts | None:
    try:
        found = json.loads(storage.read_bytes(claim))
    except storage.MissingFileError:
        return None
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}


def _machine() -> str:
    """The same for all processes that see each other's ids until the machine starts again; empty where unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + " " + os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
