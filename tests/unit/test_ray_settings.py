"""What Ray is started with, and what its workers are told; no session is started."""

from __future__ import annotations

import os
from typing import Any

import pytest
import ray

from maskhand import machine
from maskhand.annotate import keypoints
from maskhand.annotate.keypoints import AnnotateKeypoints
from maskhand.carried import OtherFileError
from maskhand.cluster import train
from maskhand.cluster.session import ensure_ray
from maskhand.config import EngineConfig
from maskhand.models import bundle
from maskhand.models.bundle import worker_bundle
from maskhand.models.bundle_records import BundleError


@pytest.mark.parametrize("has_home", [True, False])
def test_a_private_session_is_nobody_else_s(has_home: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever other clusters are on the machine; without a home it has a token of its own."""
    asked: dict[str, Any] = {}
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")  # so that it is restored
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setattr(machine, "has_home", lambda _: has_home)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **settings: asked.update(settings))
    assert ensure_ray()
    assert asked["address"] == "local" and asked["_node_ip_address"] == "127.0.0.1"
    assert not asked["include_dashboard"]
    assert ("RAY_AUTH_TOKEN" in os.environ) is not has_home


@pytest.mark.parametrize(
    ("address", "nodes", "alone"), [("", 1, True), ("", 2, False), ("10.0.0.1:6379", 1, False)]
)  # a head that is still alone at the start of a training may get nodes
def test_workers_on_several_nodes_use_the_network(
    address: str, nodes: int, alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True}] * nodes + [{"Alive": False}])
    environment = train._worker_environment(EngineConfig(use_gpu=False))
    assert ("GLOO_SOCKET_IFNAME" in environment) is alone


def test_another_model_or_detector_on_a_node_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Loaded:
        digest, version = "other", "v2"

    monkeypatch.setattr(bundle, "_loaded_once", lambda folder: Loaded())
    assert worker_bundle("export", "other").digest == "other"
    with pytest.raises(BundleError, match="the model there is other, and mine on the machine that started the work"):
        worker_bundle("export", "mine")
    monkeypatch.setattr(keypoints, "_detector", lambda name, assets: Loaded())
    with pytest.raises(OtherFileError, match=r"openpose-hand is v2 on .*, and v1 on the machine that started the work"):
        AnnotateKeypoints("openpose-hand", "assets", "v1")([])
    assert AnnotateKeypoints("openpose-hand", "assets", "v2")([]) == []
