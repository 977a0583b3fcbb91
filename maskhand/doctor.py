"""Is this machine ready? Each check looks at one thing and says what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from maskhand.conventions import Side
from maskhand.errors import MaskhandError
from maskhand.foreign_errors import explained
from maskhand.steps.synthetic import available_cores
from maskhand.workspace import Workspace

State = Literal["ok", "warn", "fail"]

NEEDED_GIB = {"memory": (4.0, 12.0), "disk": (3.0, 15.0)}
"""Below the first the quickstart fails, below the second it may."""

BREAKING: tuple[tuple[str, tuple[int, int], str], ...] = (
    ("fastapi", (0, 151), "the Prefect server does not start with it"),
    ("sqlalchemy", (2, 1), "the Prefect server never creates a scheduled run with it"),
)
"""(package, first version that breaks, how): conflicts that no installer sees."""

INSTALL = "run `make quickstart`, or install with constraints.txt"

SIDES: tuple[Side, ...] = ("right", "left")

SAME_HAND_M = 1e-5
"""Vertices that two layers place farther apart than this differ by more than rounding, which is 1e-7 m."""

PARTS = ("torch", "ray", "deepspeed", "prefect", "mlflow", "webdataset", "timm", "ai-edge-litert")


@dataclass(frozen=True)
class Finding:
    """One line of `maskhand doctor`."""

    state: State
    what: str
    found: str
    advice: str = ""
    """What to do; empty when nothing has to be done."""


Check = Callable[[Workspace], Iterator[Finding]]


def examine(workspace: Workspace, *further: Check) -> list[Finding]:
    """Every check, in the order in which a user would mend things. further: of parts that are not imported here."""
    checks: tuple[Check, ...] = (
        check_python, check_packages, check_machine, check_accelerator, check_ray, *further, check_mlflow,
        check_storage, check_hand_model, check_hand_layer, check_detector,
    )  # fmt: skip
    findings: list[Finding] = []
    for check in checks:
        try:
            findings.extend(check(workspace))
        # Nothing that one check meets may hide the answers of the others.
        except ImportError as error:
            findings.append(Finding("fail", str(error.name), f"cannot be imported: {error}", INSTALL))
        except MaskhandError as error:
            findings.append(_failed(check.__name__.removeprefix("check_"), error))
        except Exception as error:
            found = explained(error) or f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            findings.append(Finding("fail", check.__name__.removeprefix("check_"), found))
    return findings


def _failed(what: str, error: MaskhandError) -> Finding:
    """What a sentence of our own says: what is wrong, then what to do."""
    found, _, advice = str(error).partition("; ")
    return Finding("fail", what, found, advice)


def check_python(_: Workspace) -> Iterator[Finding]:
    good = sys.version_info >= (3, 11)
    yield Finding(
        "ok" if good else "fail", "Python", platform.python_version(), "" if good else "install 3.11 or later"
    )


def check_packages(_: Workspace) -> Iterator[Finding]:
    for name in PARTS:
        try:
            yield Finding("ok", name, metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding("fail", name, "not installed", INSTALL)
    for name, breaks_at, how in BREAKING:
        version = metadata.version(name)
        good = tuple(int(part) for part in version.split(".")[:2]) < breaks_at
        limit = ".".join(map(str, breaks_at))
        yield Finding("ok" if good else "fail", name, version, "" if good else f"{how}: install {name}<{limit}")


def check_machine(workspace: Workspace) -> Iterator[Finding]:
    cores = available_cores()
    yield Finding("ok" if cores >= 2 else "warn", "CPU cores", str(cores), "" if cores >= 2 else "two are the least")
    folder = next(p for p in (workspace.root, *workspace.root.parents) if p.exists())
    amounts = {"memory": memory_bytes(), "disk": shutil.disk_usage(folder).free}
    for name, amount in amounts.items():
        gib, (least, wished) = amount / 2**30, NEEDED_GIB[name]
        state: State = "fail" if gib < least else "warn" if gib < wished else "ok"
        where = f" free at {folder}" if name == "disk" else ""
        yield Finding(state, name, f"{gib:.1f} GiB{where}", "" if state == "ok" else f"{wished:g} GiB are comfortable")


def memory_bytes() -> int:
    """What this process may use: the machine's memory or a smaller limit of its container."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else "max"
    return total if text == "max" else min(total, int(text))


def check_accelerator(_: Workspace) -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        yield Finding("ok", "CUDA", f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}")
    else:
        yield Finding("ok", "CUDA", "none", "quick and tiny need none; --set engine.use_gpu=true where there is one")


def check_ray(workspace: Workspace) -> Iterator[Finding]:
    from maskhand.cluster.joining import TokenSettings
    from maskhand.cluster.session import ray_session

    address = os.environ.get("RAY_ADDRESS")
    try:
        with ray_session():
            token = ", with a token" if TokenSettings.of_this_process().mode == "token" else ""
            yield Finding("ok", "Ray", f"cluster at {address}{token}" if address else "local session starts")
    except MaskhandError as error:
        yield _failed("Ray", error)
    except Exception as error:
        advice = "check RAY_ADDRESS" if address else "free some memory"
        yield Finding("fail", "Ray", f"{type(error).__name__}: {str(error)[:120]}", advice)


def check_mlflow(workspace: Workspace) -> Iterator[Finding]:
    from maskhand.tracking import server_version

    try:
        version = server_version(workspace.mlflow_uri, retries=0)
    except MaskhandError as error:
        yield _failed("MLflow", error)
    else:
        yield Finding("ok", "MLflow", " ".join(filter(None, (workspace.mlflow_uri, version and f"({version})"))))


def check_storage(workspace: Workspace) -> Iterator[Finding]:
    from maskhand import s3_patience, storage
    from maskhand.disk import check_writable

    try:
        check_writable(workspace.root)
    except storage.StorageError as error:
        yield _failed("workspace", error)
    places = {"shards": workspace.shards_uri}
    if workspace.checkpoints is not None:
        places["checkpoints"] = workspace.checkpoints
    for what, place in places.items():
        uri = storage.join(place, ".doctor")
        try:
            with s3_patience.impatient():
                storage.write_bytes_atomic(uri, b"doctor")
                kept = storage.read_bytes(uri)
                storage.delete(uri)
        except OSError as error:
            advice = f"check MASKHAND_{what.upper()}, AWS_ENDPOINT_URL and the credentials"
            yield Finding("fail", what, str(error), advice)
        else:
            if kept == b"doctor":
                yield Finding("ok", what, f"{place} can be written")
            else:
                yield Finding("fail", what, f"{place} keeps something else than is written", "is this an S3 service?")


def check_hand_model(_: Workspace) -> Iterator[Finding]:
    from maskhand.hand.model_file import default_hand_path, load_hand_model

    try:
        path = default_hand_path()
        yield Finding("ok", "hand model", f"{path} ({load_hand_model(path).digest})")
    except (ValueError, OSError) as error:
        yield Finding(
            "fail", "hand model", str(error), "unset MASKHAND_MANO_DIR to use the open hand, or mend the path"
        )


def check_hand_layer(_: Workspace) -> Iterator[Finding]:
    """Our layer beside smplx's, on the hand models in use: 32 random poses and shapes."""
    import torch

    from maskhand.hand.layer import ManoLayer
    from maskhand.hand.model_file import default_hand_path, load_hand_model
    from maskhand.hand.rotations import random_rotations
    from maskhand.hand.smplx_layer import SmplxLayer

    generator = torch.Generator().manual_seed(0)
    rotmats = random_rotations(32 * 16, generator).view(32, 16, 3, 3)
    betas = torch.randn(32, 10, generator=generator)
    for side in SIDES:
        try:
            model = load_hand_model(default_hand_path(side))
        except (ValueError, OSError):  # `check_hand_model` says so
            continue
        ours, theirs = ManoLayer(model)(rotmats, betas), SmplxLayer(model)(rotmats, betas)
        apart_m = float((ours.vertices_m - theirs.vertices_m).abs().max())
        good = apart_m < SAME_HAND_M
        advice = "" if good else "please report it, with the model file's digest; --set hand.layer=smplx takes smplx's"
        found = f"vertices within {apart_m:.0e} m of smplx's on {default_hand_path(side).name}"
        yield Finding("ok" if good else "fail", f"{side} hand", found, advice)


def check_detector(workspace: Workspace) -> Iterator[Finding]:
    from maskhand.assets import list_assets

    asset = next(a for a in list_assets(workspace.assets) if a.name == "hand landmark models")
    advice = "" if asset.present else asset.how_to_get
    yield Finding("ok" if asset.present else "warn", asset.name, asset.where, advice)
