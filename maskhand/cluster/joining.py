"""Joining the Ray cluster at `RAY_ADDRESS`, with clear errors for what may prevent it, mostly authentication.

A cluster may require a token (`RAY_AUTH_MODE=token` on its nodes). Ray sends one with the address `auto`, and with an
explicit address only if this process has that mode as well; if rejected, it only reports "Failed to connect", after 20
attempts.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from maskhand.errors import MaskhandError

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
_GET_IT = f"{TOKEN} to the cluster's token, which `ray get-auth-token` prints on its head"
_FOUND_BY_RAY = "auto"
_CLIENT = "ray://"
_LOOK = (
    "check that the cluster runs (`ray status` on its head) and that its port, 6379 unless chosen otherwise, can be "
    "reached from here, or unset RAY_ADDRESS for a session of this machine"
)
_WAIT_S = 15.0
"""Timeout for a cluster that is being started; Ray itself waits for a minute and a half."""


class ClusterError(MaskhandError, ConnectionError):
    """The cluster cannot be joined; the message says whether a token, its mode or the connection is missing."""


@dataclass(frozen=True)
class TokenSettings:
    """The authentication settings of this process."""

    mode: str
    """`RAY_AUTH_MODE`, in lower case; empty if it is not set."""
    source: str | None
    """The variable or file from which Ray reads the token, in Ray's order; None: there is no token."""
    file: Path
    """The last place where Ray looks: in the user's home, which differs between accounts, containers and pods."""

    @classmethod
    def of_this_process(cls) -> Self:
        file = Path(os.environ.get("HOME") or "/") / ".ray" / "auth_token"
        named = next((name for name in (TOKEN, TOKEN_PATH) if os.environ.get(name)), None)
        return cls(os.environ.get(MODE, "").lower(), named or (str(file) if file.is_file() else None), file)

    def missing(self) -> str | None:
        """What this process lacks, independent of the cluster; None if nothing."""
        if self.mode == "token" and self.source is None:
            return f"{MODE} is token, and there is none in {TOKEN}, {TOKEN_PATH} or {self.file}; set {_GET_IT}"
        return None

    def refused(self) -> str:
        """What to do if the cluster rejects this process's settings."""
        if self.mode == "token":
            return f"it refuses the token of {self.source}; set {_GET_IT}"
        found = f"it asks for a token, and {MODE} is {self.mode or 'not set'} here; set {MODE}=token"
        return f"{found}, and the token of {self.source} is shown" if self.source else f"{found} and {_GET_IT}"


def join(address: str) -> None:
    """Connect this process to the cluster at `address`, the value of `RAY_ADDRESS`. Raises ClusterError."""
    settings = TokenSettings.of_this_process()
    if missing := settings.missing():
        raise ClusterError(f"RAY_ADDRESS={address}: {missing}")
    import ray

    direct = address != _FOUND_BY_RAY and not address.startswith(_CLIENT)
    if direct and not _is_host_and_port(address):
        raise ClusterError(
            f"RAY_ADDRESS={address}: expected HOST:PORT as `ray start` shows it, with port 6379 unless chosen "
            "otherwise, or auto; http:// is the dashboard's"
        )
    place = address if direct else _found_by_ray() if address == _FOUND_BY_RAY else None
    if place is not None and not _answers(place):
        found = "" if direct else f" at {place}, the cluster that Ray finds on this machine"
        raise ClusterError(f"RAY_ADDRESS={address}: nothing has answered there{found} for {_WAIT_S:.0f} s; {_LOOK}")
    if direct and _refuses_us(address):
        raise ClusterError(f"RAY_ADDRESS={address}: {settings.refused()}")
    try:
        ray.init(logging_level=logging.WARNING)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        if not direct and _refuses_us(address):
            raise ClusterError(f"RAY_ADDRESS={address}: {settings.refused()}") from error
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ClusterError(f"RAY_ADDRESS={address}: {said}; {_LOOK}") from error


def _is_host_and_port(address: str) -> bool:
    found = re.fullmatch(r"(?:[^\s:/\[\]]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5})", address)
    return found is not None and 0 < int(found[1]) < 1 << 16


def _found_by_ray() -> str | None:
    """The address that Ray takes for `auto`, perhaps of a cluster that has ended; None where it finds none, or one in
    another form."""
    from ray._private.services import canonicalize_bootstrap_address

    try:
        found = canonicalize_bootstrap_address(_FOUND_BY_RAY)
    except ConnectionError:  # said by ray.init, too
        return None
    return found if found is not None and _is_host_and_port(found) else None


def _answers(address: str) -> bool:
    """Whether a process listens at host:port."""
    host, _, port = address.rpartition(":")
    deadline_s = time.monotonic() + _WAIT_S
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_WAIT_S).close()
        except OSError:
            if time.monotonic() > deadline_s:
                return False
            time.sleep(0.1)
        else:
            return True


def _refuses_us(address: str) -> bool:
    """Whether the cluster answers, but requires another token than this process sends."""
    from ray._private.services import canonicalize_bootstrap_address
    from ray._raylet import GcsClient  # type: ignore[attr-defined]  # a compiled module

    try:
        GcsClient(address=canonicalize_bootstrap_address(address))
    except Exception as error:  # of several types; other errors are reported by ray.init
        return re.search("unauthenticated|InvalidAuthToken", f"{type(error).__name__}: {error}", re.I) is not None
    return False
