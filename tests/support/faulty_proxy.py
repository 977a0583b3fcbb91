"""A TCP proxy in front of an HTTP server that goes wrong on purpose, by a seed: errors, resets, stalls, short answers.

Every connection carries one request (its answer says `Connection: close`), so that a fault hits one request.
"""

from __future__ import annotations

import contextlib
import random
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

FAULTS = ("500", "503", "reset before", "reset inside", "closed inside", "stall")
"""Server errors; a reset instead of the answer; a reset and a polite end within the answer; silence."""


@dataclass
class FaultyProxy:
    """Forwards 127.0.0.1:port to the server; a `share` of the requests meets one of the faults."""

    upstream: tuple[str, int]
    share: float
    stall_s: float
    seed: int = 0
    always: str = ""
    """A fault that hits every request; one of FAULTS or `no body`, an answer that ends with its headers."""
    seen: Counter[str] = field(default_factory=Counter)
    """Fault -> how often it was done; `requests` counts everything."""

    def __post_init__(self) -> None:
        self._random, self._lock, self._open = random.Random(self.seed), threading.Lock(), True
        self._hits: Counter[bytes] = Counter()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._open = False
        self._listener.close()

    def _accept(self) -> None:
        while self._open:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.settimeout(30)
            request = _read_request(client)
            if request is None:
                return
            fault = self._choose(request.partition(b"\r\n")[0])
            if fault == "stall":
                threading.Event().wait(self.stall_s)
            elif fault in ("500", "503"):
                client.sendall(f"HTTP/1.1 {fault} Fault\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            elif fault == "reset before":
                _reset(client)
            else:
                self._forward(client, request, fault)

    def _choose(self, request_line: bytes) -> str:
        """The same request fails twice in a row at most: how often it is tried again is `always`' business."""
        with self._lock:
            self.seen["requests"] += 1
            if self.always:
                return self.always
            fault = FAULTS[sum(self.seen[f] for f in FAULTS) % len(FAULTS)]
            if self._random.random() >= self.share or self._hits[request_line] == 2:
                self._hits[request_line] = 0
                return ""
            self._hits[request_line] += 1
            self.seen[fault] += 1
            return fault

    def _forward(self, client: socket.socket, request: bytes, fault: str) -> None:
        with socket.create_connection(self.upstream, timeout=30) as server:
            server.sendall(request)
            answer = b"".join(_pieces(server))
        head = answer.index(b"\r\n\r\n") + 4
        # The body is cut at a random place; an answer without one arrives whole but for its last header bytes.
        with self._lock:
            cut = self._random.randrange(head, len(answer)) if len(answer) > head else head - 2
        if fault == "no body":
            cut = head
        if not fault:
            client.sendall(answer)
            return
        client.sendall(answer[:cut])
        if fault == "reset inside":
            _reset(client)


def _read_request(client: socket.socket) -> bytes | None:
    """One whole request, told to close its connection afterwards; None when the client has gone."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (piece := client.recv(65536)):
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    missing = (int(length[1]) if length else 0) - len(body)
    if re.search(rb"(?i)\r\nexpect: *100-continue", head):
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        head = re.sub(rb"(?i)\r\nexpect: *100-continue", b"", head)
    parts = [body]
    while missing > 0:
        if not (piece := client.recv(min(missing, 1 << 20))):
            return None
        parts.append(piece)
        missing -= len(piece)
    head = re.sub(rb"(?i)\r\nconnection: *[^\r]*", b"", head)
    return head + b"\r\nConnection: close\r\n\r\n" + b"".join(parts)


def _pieces(server: socket.socket) -> Iterator[bytes]:
    while piece := server.recv(1 << 20):
        yield piece


def _reset(client: socket.socket) -> None:
    """Close with RST instead of FIN."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@contextlib.contextmanager
def faulty_proxy(endpoint: str, *, share: float, stall_s: float, seed: int = 0) -> Iterator[FaultyProxy]:
    """A proxy in front of `endpoint` (http://host:port)."""
    host, port = endpoint.removeprefix("http://").split(":")
    proxy = FaultyProxy((host, int(port)), share, stall_s, seed)
    try:
        yield proxy
    finally:
        proxy.close()
