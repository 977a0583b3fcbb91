"""The mapper of the cluster: Ray Data over shards, in its own processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskhand.catalog import load_spec
from maskhand.cluster.map import map_on_gpus, map_shards
from maskhand.cluster.session import ensure_ray, ray_session
from maskhand.hand.model_file import OPEN_HAND_FOLDER, default_hand_path, load_hand_model
from maskhand.sample import SampleError
from maskhand.shards.build import build_shards
from maskhand.shards.reader import ShardSample, ShardSet
from maskhand.shards.sidecar import Annotator, build_sidecar
from maskhand.shards.sidecar_records import DetectedKeypoints
from maskhand.shards.verify import verify
from support.published_layouts import WRITERS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    with ray_session():
        yield


def test_results_keep_the_order_and_errors_arrive_as_raised() -> None:
    def square_elsewhere(x: int) -> tuple[int, int]:
        return x * x, os.getpid()

    def refuse(x: int) -> int:
        raise SampleError("odd", f"{x} is refused")

    seen: list[tuple[int, int]] = []
    results = map_shards(square_elsewhere, list(range(9)), concurrency=2, on_done=seen.append)
    assert [square for square, _ in results] == [x * x for x in range(9)]
    assert sorted(seen) == sorted(results)
    assert os.getpid() not in {pid for _, pid in results}
    assert map_shards(square_elsewhere, []) == []
    with pytest.raises(SampleError, match="7 is refused") as error:
        map_shards(refuse, [7])
    assert error.value.reason == "odd"


def test_tasks_have_the_drivers_hand_and_settings_and_ray_logs_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session was started before they were set, like the nodes of a cluster."""
    import ray

    (tmp_path / "MANO_RIGHT.pkl").write_bytes((OPEN_HAND_FOLDER / "OPEN_HAND_RIGHT.pkl").read_bytes() + b"\n")
    monkeypatch.setenv("MASKHAND_MANO_DIR", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "a-word-to-look-for")

    def hand_and_password(_: int) -> tuple[str, str | None]:
        return load_hand_model(default_hand_path()).digest, os.environ.get("MLFLOW_TRACKING_PASSWORD")

    (found,) = map_shards(hand_and_password, [0])
    assert found == (load_hand_model(tmp_path / "MANO_RIGHT.pkl").digest, "a-word-to-look-for")
    monkeypatch.delenv("MASKHAND_MANO_DIR")
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
    assert map_shards(hand_and_password, [0]) == [(load_hand_model(default_hand_path()).digest, None)]
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    logs = [path for path in session.rglob("*") if path.is_file()]
    assert logs and not [path for path in logs if b"a-word-to-look-for" in path.read_bytes()]


@pytest.mark.skipif(cv2.getNumberOfCPUs() < 2, reason="has one thread anyway")
def test_a_task_keeps_to_its_core() -> None:
    assert map_shards(lambda _: cv2.getNumThreads(), [0, 1]) == [1, 1]


def test_networks_have_a_gpu_each_where_the_session_has_some() -> None:
    assert map_on_gpus(str, [1, 2]) == ["1", "2"]
    program = (
        "import os, ray; ray.init(num_cpus=4, num_gpus=2, include_dashboard=False, log_to_driver=False,"
        " _node_ip_address='127.0.0.2')\n"
        "from maskhand.cluster.map import map_on_gpus, map_shards\n"
        "gpu = lambda _: os.environ.get('CUDA_VISIBLE_DEVICES')\n"
        "print('GPUS', *map_on_gpus(gpu, [1, 2, 3]), *map_shards(gpu, [1]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("GPUS")]
    *with_gpu, without = line.split(" ")[1:]
    assert len(with_gpu) == 3 and set(with_gpu) <= {"0", "1"} and without not in ("0", "1", "0,1"), line


def test_a_private_session_listens_on_the_loopback_interface_only() -> None:
    import psutil

    assert map_shards(str, [1]) == ["1"]  # with a worker
    me = psutil.Process()
    sockets = {
        (process.name(), connection.laddr.ip.removeprefix("::ffff:"))
        for process in (me, *me.children(recursive=True))
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {"gcs_server", "raylet"} <= {name for name, _ in sockets}
    assert {ip for _, ip in sockets} <= {"127.0.0.1", "::1"}, sockets


def test_an_open_session_is_joined_and_left_running() -> None:
    import ray

    assert not ensure_ray()
    with ray_session():
        pass
    assert ray.is_initialized()
    assert ray.cluster_resources()["CPU"] >= 4


def test_shards_and_sidecars_are_the_same_with_one_and_two_workers(tmp_path: Path) -> None:
    def center(samples: list[ShardSample]) -> list[DetectedKeypoints]:
        return [DetectedKeypoints(s.sample.box_xyxy_px.reshape(2, 2).mean(0), np.ones(1)) for s in samples]

    spec = load_spec("freihand_synth").model_copy(update={"shard_size": 5, "images_per_annotation": {"training": 4}})
    raw = WRITERS["freihand"](tmp_path / "raw", spec, "training", 6)
    for workers in (1, 2):
        uri, mapper = str(tmp_path / f"workers{workers}"), partial(map_shards, concurrency=workers)
        build_shards(spec, str(raw.raw_dir), "training", uri, mapper=mapper)
        build_sidecar(uri, "centers", Annotator("center", "1"), center, mapper=mapper)
        assert verify(uri, mapper=mapper) == []
        assert sum(1 for _ in ShardSet.open(uri, ["centers"])) == 24
    one, two = (
        {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        for folder in (tmp_path / "workers1", tmp_path / "workers2")
    )
    assert one == two
