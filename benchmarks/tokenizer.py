"""VQ-MANO on held-out poses: the tokenizer that ships, and the error against steps, tokens and codebook.

    python benchmarks/tokenizer.py open --out OUT                                # train the recipe `open`
    python benchmarks/tokenizer.py curve --steps 1500 --out curve                # other sizes, 1,500 steps each
    python benchmarks/tokenizer.py measure maskhand/models/open_tokenizer        # a trained one
    python benchmarks/tokenizer.py plot curve OUT/run --out curve.png            # the image of both

Poses are those of the pose prior. Held out: 1,000 draws of another seed, and the named shapes of the grasp taxonomy
and the finger alphabet, each in 30 orientations; all orientations uniform. Training poses that come closer than 5
degrees, in every joint, to a named shape are left out. Rows are written to OUT/rows.jsonl as they come.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from maskhand.config import Recipe
from maskhand.conventions import NUM_BETAS
from maskhand.hand.anatomy import pose_table, to_axis_angle
from maskhand.hand.layer import ManoLayer
from maskhand.hand.rotations import axis_angle_to_matrix
from maskhand.loading.poses import PosePool
from maskhand.models.tokenizer_files import load_tokenizer
from maskhand.models.vq_mano import VQMano
from maskhand.paper.measures.tokenizer import reconstruction_errors
from maskhand.recipe_files import load_recipe
from maskhand.synth.pose_prior import sample_poses
from maskhand.training import tokenizer_loop
from maskhand.training.worker import EXPORT, WorkerContext

TRAIN_POSES, HELD_OUT_POSES, ORIENTATIONS = 150_000, 1_000, 30
APART_DEG = 5.0
DRAW = 2_000
NAMED = ("grasp", "alphabet")
REPORTED = ("pa_mpjpe_mm", "pa_mpvpe_mm", "mpjpe_mm", "mpvpe_mm", "orientation_deg", "rotation_deg")
CURVE: dict[str, tuple[int, int]] = {  # tokens, codes
    "16 tokens": (16, 2048),
    "32 tokens": (32, 2048),
    "64 tokens": (64, 2048),
    "128 tokens": (128, 2048),
    "64 tokens, 1024 codes": (64, 1024),
    "64 tokens, 4096 codes": (64, 4096),
}


def named_shapes(group: str) -> np.ndarray:
    """(S, 16, 3) degrees."""
    table = pose_table()
    return table.angles_deg[[g == group for g in table.groups]]


def training_poses() -> np.ndarray:
    """(N, 16, 3) axis-angle without orientation, none within APART_DEG of a held-out named shape."""
    rng = np.random.default_rng([0, 1])
    named = np.concatenate([named_shapes(group) for group in NAMED])
    poses: list[np.ndarray] = []
    while sum(map(len, poses)) < TRAIN_POSES:
        angles = sample_poses(rng, DRAW)
        nearest = np.abs(angles[:, None] - named).max((2, 3)).min(1)
        poses.append(to_axis_angle(angles[nearest >= APART_DEG]).astype(np.float32))
    return np.concatenate(poses)[:TRAIN_POSES]


def held_out() -> dict[str, PosePool]:
    rng = np.random.default_rng([0, 2])
    angles = {"prior": sample_poses(rng, HELD_OUT_POSES)}
    angles |= {group: named_shapes(group).repeat(ORIENTATIONS, 0) for group in NAMED}
    pools = {}
    for name, values in angles.items():
        pose = to_axis_angle(values)
        pose[:, 0] = Rotation.random(len(pose), random_state=rng).as_rotvec()
        pools[name] = PosePool(pose.astype(np.float32), np.zeros((len(pose), NUM_BETAS), np.float32))
    return pools


def measure(folder: Path, mano: ManoLayer) -> dict[str, dict[str, float]]:
    tokenizer = load_tokenizer(folder)
    rows = {}
    for name, pool in held_out().items():
        errors = reconstruction_errors(tokenizer, mano, pool)
        rows[name] = {key: errors[key] for key in REPORTED} | code_usage(tokenizer, pool)
    return rows


@torch.inference_mode()
def code_usage(tokenizer: VQMano, poses: PosePool) -> dict[str, float]:
    """How much of the codebook the poses use: `perplexity` (1..codes) and `unused_percent` of the codes."""
    counts = torch.zeros(tokenizer.codebook_size)
    for part in np.array_split(poses.pose_aa, max(len(poses) // 256, 1)):
        codes = tokenizer.encode(axis_angle_to_matrix(torch.from_numpy(part)))
        counts += codes.flatten().bincount(minlength=len(counts))
    share = counts / counts.sum()
    entropy = -(share * share.clamp_min(1e-12).log()).sum()
    return {"perplexity": entropy.exp().item(), "unused_percent": 100 * (counts == 0).float().mean().item()}


class MeasuringStore:
    """Keeps the newest checkpoint and measures every one."""

    def __init__(self, root: Path, measured: Callable[[int, Path], None]) -> None:
        self._root, self._measured = root, measured

    def save(self, step: int, write: Callable[[Path], None], error_mm: float | None = None) -> None:
        part, final, older = self._root / "part", self._root / f"step-{step:09d}", list(self._root.glob("step-*"))
        self._root.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(part, ignore_errors=True)
        write(part)
        part.rename(final)
        for folder in older:
            shutil.rmtree(folder)
        self._measured(step, final / EXPORT)

    @contextmanager
    def latest(self) -> Iterator[Path | None]:
        yield max(self._root.glob("step-*"), default=None)


def train(name: str, recipe: Recipe, pool: np.ndarray, out: Path) -> Path:
    """Train, measuring at every checkpoint; continued where it was interrupted. Returns the exported folder."""
    mano = ManoLayer.from_default()
    clock = {"cpu_s": time.process_time()}

    def measured(step: int, folder: Path) -> None:
        spent = time.process_time() - clock["cpu_s"]
        sets = measure(folder, mano)
        row = {"name": name, "step": step, "cpu_s": round(spent, 1), "sets": sets}
        with open(out / "rows.jsonl", "a") as file:
            file.write(json.dumps(row) + "\n")
        prior = sets["prior"]
        print(f"{name:22} {step:6d} {spent:7.0f} s  " + "  ".join(f"{k} {prior[k]:.3f}" for k in prior), flush=True)
        clock["cpu_s"] += time.process_time() - clock["cpu_s"] - spent  # measuring does not count as training

    def poses(first_step: int) -> Iterator[Tensor]:
        step = first_step
        while True:
            rows = np.random.default_rng([recipe.seed, step]).integers(
                len(pool), size=recipe.tokenizer_training.optim.batch
            )
            yield axis_angle_to_matrix(torch.from_numpy(pool[rows]))
            step += 1

    store = MeasuringStore(out / name.replace(", ", "_").replace(" ", "_"), measured)
    tokenizer_loop.train(recipe, mano, poses, WorkerContext(0, 1, lambda step, metrics: None, store))
    with store.latest() as folder:
        assert folder is not None
        return folder / EXPORT


def plot(folders: list[Path], image: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [json.loads(line) for folder in folders for line in (folder / "rows.jsonl").read_text().splitlines()]
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4), sharey=True)
    for name in dict.fromkeys(row["name"] for row in rows):
        mine = [row for row in rows if row["name"] == name]
        errors = [row["sets"]["prior"]["pa_mpjpe_mm"] for row in mine]
        for axis, key in zip(axes, ("step", "cpu_s"), strict=True):
            axis.loglog([row[key] for row in mine], errors, ".-", label=name)
    for axis, label in zip(axes, ("steps", "seconds of one core"), strict=True):
        axis.axhline(0.47, color="gray", linestyle=":")
        axis.set_xlabel(label)
        axis.grid(alpha=0.3, which="both")
    axes[0].set_ylabel("PA-MPJPE of held-out poses, mm")
    axes[0].text(axes[0].get_xlim()[0] * 1.1, 0.49, "paper: 0.47", color="gray")
    axes[1].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(image, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("open", "curve", "measure", "plot"))
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--out", type=Path, default=Path("tokenizer"))
    parser.add_argument("--steps", type=int, help="of each training of the curve", default=1500)
    parser.add_argument("--only", help="one row of the curve")
    wanted = parser.parse_args()
    if wanted.what == "measure":
        print(json.dumps({str(f): measure(f, ManoLayer.from_default()) for f in wanted.folders}, indent=1))
        return
    if wanted.what == "plot":
        return plot(wanted.folders, wanted.out)
    wanted.out.mkdir(parents=True, exist_ok=True)
    pool = training_poses()
    if wanted.what == "open":
        export = train("open", load_recipe("open"), pool, wanted.out / "run")
        for file in ("tokenizer.pt", "tokenizer.json"):
            shutil.copy(export / file, wanted.out / file)
        return
    for name, (tokens, codes) in CURVE.items():
        if wanted.only in (None, name):
            sizes = [f"tokenizer.num_tokens={tokens}", f"tokenizer.codebook_size={codes}"]
            optim = (
                "batch=64",
                f"steps={wanted.steps}",
                "checkpoint_every=250",
            )  # 16 tokens of 32 poses: too few vectors
            steps = [f"tokenizer_training.optim.{key}" for key in optim]
            train(name, load_recipe("open", [*sizes, *steps]), pool, wanted.out)


if __name__ == "__main__":
    main()
