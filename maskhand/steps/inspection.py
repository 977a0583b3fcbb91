"""The step that looks at a shard set: statistics and a contact sheet, as files and for people."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from maskhand import storage
from maskhand.conventions import FINGERS
from maskhand.inspection.inspect_set import inspect_set, open_with_sidecars
from maskhand.progress import Progress
from maskhand.render import data_url
from maskhand.shards.layout import IMAGES
from maskhand.steps.data import uri_of_set
from maskhand.steps.receipt import Receipt
from maskhand.workspace import Workspace

SHEET = "sheet.png"
STATISTICS = "statistics.json"
"""Written last."""
_PAGE_QUALITY = 88


@dataclass(frozen=True)
class InspectionReceipt(Receipt):
    """Names `statistics.json` of an inspected shard set."""

    read: int
    """Samples that the statistics are about."""
    sheet: str
    """URI of the contact sheet."""


def inspect(
    workspace: Workspace,
    name_or_uri: str,
    progress: Progress,
    *,
    out: str | None = None,
    hands: int = 16,
    limit: int | None = None,
    seed: int = 0,
) -> InspectionReceipt:
    """Statistics and contact sheet of a shard set, into OUT/DATASET/SPLIT (else WORKSPACE/reports/inspect/...).

    The receipt names `statistics.json`; the sheet lies beside it. See `inspection.inspect_set` for the options.
    """
    uri = uri_of_set(workspace, name_or_uri)
    found = inspect_set(uri, hands=hands, limit=limit, seed=seed, progress=progress)
    facts = found.statistics
    folder = storage.join(out or str(workspace.reports / "inspect"), facts.dataset, facts.split)
    storage.write_bytes_atomic(storage.join(folder, SHEET), found.sheet_png)
    storage.write_bytes_atomic(storage.join(folder, STATISTICS), facts.to_json())
    return InspectionReceipt.of(storage.join(folder, STATISTICS), read=facts.read, sheet=storage.join(folder, SHEET))


def input_digests(workspace: Workspace, name_or_uri: str) -> dict[str, str]:
    """Everything that decides an inspection: part of the set -> its data digest."""
    shard_set = open_with_sidecars(uri_of_set(workspace, name_or_uri))
    digests = {part: manifest.digest for part, manifest in shard_set.sidecar_manifests.items()}
    return {IMAGES: shard_set.manifest.digest, **digests}


def sheet_as_data_url(receipt: InspectionReceipt) -> str:
    """The sheet inside its own address, for pages that cannot reach our files; a JPEG, a tenth of the PNG's size."""
    with Image.open(io.BytesIO(storage.read_bytes(receipt.sheet))) as sheet:
        jpeg = io.BytesIO()
        sheet.save(jpeg, "JPEG", quality=_PAGE_QUALITY)
    return data_url(jpeg.getvalue(), "jpeg")


def table(receipt: InspectionReceipt) -> list[tuple[str, str]]:
    """The figures of `statistics.json`, for people: (what, value)."""
    facts = json.loads(storage.read_bytes(receipt.uri))
    images, read = facts["parts"][IMAGES], facts["read"]
    official = "not stated" if facts["official_count"] is None else f"{facts['official_count']:,}"
    rows = [
        ("hands in shards", f"{images['count']:,} of {images['planned']:,} planned"),
        ("images, as its authors count them", official),
        *((f"rejected, {reason}", f"{number:,}") for reason, number in images["rejects"].items()),
        *(("note", note) for note in facts["notes"]),
        *_sidecars(facts["parts"]),
        *((part, "left out: unfinished, or made from other images; annotate again") for part in facts["left_out"]),
        ("hands read here", f"{read:,}"),
        ("sides", ", ".join(f"{side} {_share(number, read)}" for side, number in facts["sides"].items())),
        *((f"has {label}", _share(number, read)) for label, number in facts["coverage"].items()),
        ("quantiles", "min | 5 % | 25 % | median | 75 % | 95 % | max"),
        ("image, longer side px", _quantiles(facts["image_px"], 0)),
        ("box, longer side px", _quantiles(facts["box_px"], 0)),
        ("annotated 2D joints", _quantiles(facts["joints_2d"], 0)),
        ("annotated 2D confidence", _quantiles(facts["joints_2d_conf"], 2)),
        ("annotated 3D joints", _quantiles(facts["joints_3d"], 0)),
        *((f"confidence, {part}", _quantiles(q, 2)) for part, q in facts["detected_conf"].items()),
        *_targets(facts),
    ]
    return [row for row in rows if row[1]]


def _sidecars(parts: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for part, about in parts.items():
        if part != IMAGES:
            rows.append((part, f"{about['count']:,} of {about['planned']:,}, by {about['made_by']}"))
            rows += [(f"{part}, rejected, {reason}", f"{n:,}") for reason, n in about["rejects"].items()]
    return rows


def _targets(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    total = sum(facts["targets"].values())
    if not total:
        return []
    rows = [("MANO targets", ", ".join(f"{source} {n:,}" for source, n in facts["targets"].items()))]
    rows.append(("good MANO targets", _share(facts["good_targets"], total)))
    rows += [(f"bad MANO targets, {fault}", _share(number, total)) for fault, number in facts["bad_targets"].items()]
    for source in facts["targets"]:
        rows.append((f"residual mm, {source}", _quantiles(facts["residual_mm"][source], 2)))
        rows.append((f"residual px, {source}", _quantiles(facts["residual_px"][source], 2)))
    spread = facts["pose_spread_deg"]
    if spread:
        rows.append(("spread of global orientation", f"{spread['wrist']:.0f} degrees"))
        fingers = [(name, spread[name + "1"], spread[name + "2"], spread[name + "3"]) for name in FINGERS]
        rows += [(f"spread of {n}1 2 3", f"{a:.0f} | {b:.0f} | {c:.0f} degrees") for n, a, b, c in fingers]
        rows.append(("betas, mean", " ".join(f"{v:.2f}" for v in facts["betas_mean"])))
        rows.append(("betas, deviation", " ".join(f"{v:.2f}" for v in facts["betas_std"])))
    return rows


def _quantiles(found: Mapping[str, Any], digits: int) -> str:
    names = ("min", "p5", "p25", "p50", "p75", "p95", "max")
    return " | ".join(f"{found[name]:.{digits}f}" for name in names) if found["count"] else ""


def _share(number: int, total: int) -> str:
    return f"{number:,} ({100 * number / total:.1f} %)"
