"""A real S3 server on the loopback interface: SeaweedFS, with credentials that it checks."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import BotoCoreError, ClientError

SECRET = "not-a-secret-" + "0" * 20


@dataclass(frozen=True)
class S3Server:
    endpoint: str
    bucket: str

    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "tester",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """Start the server with one empty bucket; stop it by its process id at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    identity = {
        "name": "tester",
        "credentials": [{"accessKey": "tester", "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "identities.json").write_text(json.dumps({"identities": [identity]}))
    master, volume, filer, s3 = _free_ports(4)
    command = [str(Path(sys.executable).parent / "weed"), "-logtostderr=true", "server"]
    command += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}", f"-master.port={master}"]
    command += ["-master.telemetry=false", "-master.volumeSizeLimitMB=64", f"-volume.port={volume}", "-volume.max=50"]
    command += ["-volume.preStopSeconds=0", f"-filer.port={filer}", "-s3", f"-s3.port={s3}", "-s3.port.iceberg=0"]
    command += ["-s3.port.lance=0", f"-s3.config={folder / 'identities.json'}"]
    server = S3Server(f"http://127.0.0.1:{s3}", "shards")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        _create_bucket(server, process, folder / "log")
        yield server
    finally:
        # Its polite shutdown takes 16 s and there is nothing to keep.
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
        for port in (master, volume, filer, s3):
            for number in (port, port + 10_000):
                for left_over in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):
                    left_over.unlink()


def _create_bucket(server: S3Server, process: subprocess.Popen, log: Path) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id="tester",
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
    )
    deadline = time.monotonic() + 90
    while True:
        try:
            client.create_bucket(Bucket=server.bucket)
            client.put_object(Bucket=server.bucket, Key="ready", Body=b"1")
            client.delete_object(Bucket=server.bucket, Key="ready")
            return
        except (BotoCoreError, ClientError) as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the S3 server did not start: {error}\n{log.read_text()[-2000:]}") from error
            time.sleep(0.3)


def _free_ports(count: int) -> list[int]:
    """Ports that are free, and whose gRPC companion (port + 10000) is free as well."""
    ports: list[int] = []
    while len(ports) < count:
        with socket.socket() as probe, socket.socket() as companion:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
            if port + 10_000 > 65_535 or port in ports:
                continue
            with contextlib.suppress(OSError):
                companion.bind(("127.0.0.1", port + 10_000))
                ports.append(port)
    return ports


@contextlib.contextmanager
def run_places(kind: str, root: Path) -> Iterator[Callable[[str], str]]:
    """Name of a run -> the URI of its folder, in `root` (`folder`) or on a server that this process asks (`s3`)."""
    if kind == "folder":
        yield lambda name: str(root / name)
        return
    with s3_server(root) as server, pytest.MonkeyPatch.context() as environment:
        for name, value in server.environment().items():
            environment.setenv(name, value)
        yield lambda name: f"s3://{server.bucket}/runs/{name}"
