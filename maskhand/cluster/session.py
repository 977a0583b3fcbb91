"""The Ray session: a local one, or the cluster at `RAY_ADDRESS`."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
from collections.abc import Iterator

from maskhand import machine, signals
from maskhand.cluster.ending import end_with, ended_early, shut_down
from maskhand.cluster.joining import join
from maskhand.cluster.watch import watched
from maskhand.errors import MaskhandError
from maskhand.limits import check_limits

LOCAL_CPUS = max(os.cpu_count() or 1, 4)
"""Logical CPUs of a local session. Ray counts but does not pin them; with only two, two training workers and a
data task would deadlock."""

_OBJECT_STORE_BYTES = 512 * 1024**2
_SHARED_MEMORY = "/dev/shm"
_STARTS = 3
"""Attempts to start a local session: Ray's timeout of half a minute may be too short on a busy machine."""


class SessionError(MaskhandError, RuntimeError):
    """A Ray session that does not start; on a busy machine a later attempt may succeed."""

    retryable = True


def ensure_ray() -> bool:
    """Connect this process to Ray unless it is connected; True if this call started or joined a session.

    With `RAY_ADDRESS` set it joins that cluster. Otherwise it starts a small private session on the loopback interface,
    without dashboard or usage statistics, independent of any other sessions. Raises ClusterError if the cluster cannot
    be joined, SessionError, and MachineError for a folder in which Ray cannot store its files and for limits
    that are too low.
    """
    machine.settle()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        return False
    if address := os.environ.get("RAY_ADDRESS"):
        join(address)
        return True
    # When a disk of any size is 95 % full, Ray would silently wait for space.
    os.environ.setdefault("RAY_local_fs_capacity_threshold", "1")
    folder = machine.ray_folder()
    check_limits()
    if not machine.has_home(".ray"):
        # Ray stores its processes' common token there; without it, this session gets its own token.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    for left in reversed(range(_STARTS)):
        try:
            with _sentence("no Ray session starts on this machine", f"its logs are in {folder}/session_latest/logs"):
                _start_local(folder)
            break
        except SessionError as error:
            shut_down()
            if not left:
                raise
            logging.getLogger(__name__).warning(f"{error}; it is tried again")
    return True


def _start_local(folder: str) -> None:
    import ray

    with _loopback_allowed(), _without_pages():
        ray.init(
            address="local",
            num_cpus=LOCAL_CPUS,
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            logging_level=logging.ERROR,
            log_to_driver=False,
            _node_ip_address="127.0.0.1",
            _temp_dir=folder,
            # Ray itself looks only at the room there, and then waits for a store that cannot start.
            _plasma_directory=None if os.access(_SHARED_MEMORY, os.W_OK | os.X_OK) else folder,
        )


@contextlib.contextmanager
def _sentence(what: str, advice: str) -> Iterator[None]:
    """Convert an error of Ray, whose message may fill pages, to one sentence."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise SessionError(f"{what} ({reason}); {advice}") from error


@contextlib.contextmanager
def _loopback_allowed() -> Iterator[None]:
    """A context in which Ray accepts 127.0.0.1 as a node's address, and then binds its servers to it.

    On Linux it would replace it by an external address, and with any other address, also 127.0.0.2, its servers listen
    on all interfaces. On macOS it accepts it by default. The variable is for the processes that Ray starts.
    """
    from ray._private import ray_constants

    variable = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    before = os.environ.get(variable)
    enabled, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    os.environ[variable] = "0"
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = enabled
        os.environ.pop(variable)
        if before is not None:
            os.environ[variable] = before


@contextlib.contextmanager
def _without_pages() -> Iterator[None]:
    """A context in which Ray begins no thread that prints pages of its log on stdout when a part of the session ends:
    `watched` says so."""
    from ray._private import worker

    before, worker.listen_error_messages = worker.listen_error_messages, lambda *_: None
    try:
        yield
    finally:
        worker.listen_error_messages = before


@contextlib.contextmanager
def ray_session() -> Iterator[None]:
    """A context with a Ray session; an existing one is used and left running. SIGTERM ends the block, and the loss of
    the session, by LostSessionError."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        started = ensure_ray()
    except SystemExit as end:
        if end.code == signal.SIGTERM:  # from Ray's own handler, which is there while a session starts
            signals.is_first(signal.SIGTERM)
            end_with(handler)
        raise
    if not started:
        with ended_early(handler):
            yield
        return
    try:
        with watched(), ended_early(handler):
            yield
    finally:
        shut_down()
