"""The catalog: one card per dataset (`datasets/<name>/card.yaml`), read into a frozen `DatasetSpec`.

A card states facts as data: license, splits with official counts, joint order, units, axes, MANO convention. Code
depends on these facts, never on the dataset's name. The catalog is the repository's folder `datasets/`, or the folders
that `$MASKHAND_CATALOG` lists, separated like those of `$PATH`.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    field_validator,
)

from maskhand.conventions import AXES_TO_OPENCV, FINGERTIP_VERTICES, JOINT_ORDERS, Side
from maskhand.digest import short_digest
from maskhand.errors import MaskhandError
from maskhand.path_names import PathNameError, path_name
from maskhand.scoring.formats import check_name
from maskhand.yaml_text import YamlError, read_yaml

_OWN = Path(__file__).parent / "datasets"


class CatalogError(MaskhandError, ValueError):
    """A card that is missing or cannot be used; the message names the file, the key and what to do."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class License(_Frozen):
    """Under which terms the images and labels may be used."""

    name: str
    commercial_use: bool
    redistribution: bool
    note: str = ""


class ManoConvention(_Frozen):
    """How the dataset stores MANO parameters; docs/formats.md#mano-parameters compares them."""

    pose: Literal["axis_angle", "pca"]
    flat_hand_mean: bool
    """False: stored finger rotations are relative to the model's mean pose `hands_mean`."""
    frame: Literal["camera", "world"]
    translation: Literal["metric", "from_joints"]
    """metric: a vector in meters is stored; from_joints: the annotated joints place the mesh."""
    model: Literal["mano", "any"]
    """mano: only the licensed model has the mean pose these parameters refer to; any: made with the model in use."""
    left_shapedirs_fixed: bool = True
    """Whether the official left model's wrong sign in the first shape axis was corrected before fitting."""


class LabelFilters(_Frozen):
    """Limits beyond which published labels are too uncertain to learn from."""

    min_keypoint_conf: float
    """A keypoint with less confidence counts as not annotated."""
    min_keypoints: int
    """Hands with fewer annotated keypoints are left out."""
    max_reprojection_loss: float
    """Hands whose published fit reached this loss are left out."""
    max_abs_beta: float
    """MANO parameters with a larger shape coefficient are left out."""


class Benchmark(_Frozen):
    """Held-out splits that models are measured on: by `maskhand evaluate --benchmark` and by every re-evaluation."""

    title: str
    """As papers print it."""
    protocol: str = ""
    """What our measurement fixes where papers differ or say nothing."""
    format: str | None = None
    """Official format of prediction files: a name of `scoring.formats`, or `package.module:FORMAT`. None: none."""
    splits: tuple[str, ...]
    name: str = ""
    """Under which its numbers are kept; empty: the dataset's name."""
    aliases: tuple[str, ...] = ()
    """Further names to ask for it by."""
    subsets: dict[str, str] = Field(default_factory=dict)
    """Name -> split of the same images with labels of some joints only, such as `occ` for occluded ones."""

    @field_validator("format")
    @classmethod
    def _check_format(cls, name: str | None) -> str | None:
        if name is not None:
            check_name(name)
        return name


class DatasetSpec(_Frozen):
    """The facts on one dataset's card."""

    name: str
    title: str
    layout: str
    """Name of the adapter that reads the published files, see `maskhand.adapters`; one from outside is named
    `package.module:Class`."""
    open: bool = False
    """True: there is no license to accept; the project generates or ships the dataset."""
    license: License
    how_to_get: str
    splits: dict[str, NonNegativeInt | None]
    """Split -> official number of images (or hands, as the card notes); None where none is published."""
    default_splits: tuple[str, ...] = ()
    """Splits that are built when none is named, where splits share images; all splits if absent."""
    images_per_annotation: dict[str, PositiveInt] = Field(default_factory=dict)
    """Split -> images that share one annotation (image i has annotation i modulo their number); 1 if absent."""
    joint_order: str | None
    """A key of `conventions.JOINT_ORDERS`; None: no joints are annotated."""
    fingertip_vertices: str | None
    """A key of `conventions.FINGERTIP_VERTICES`; None: the tips are not model vertices."""
    fingertip_vertices_left: str | None = None
    """The same for left hands, where they differ from right ones."""
    units: Literal["m", "cm", "mm"] | None
    """None: nothing is annotated in 3D."""
    axes: str | None
    """A key of `conventions.AXES_TO_OPENCV`; None: nothing is annotated in 3D."""
    mano: ManoConvention | None
    handedness: Literal["right", "left", "both"]
    filters: LabelFilters | None = None
    """For datasets that publish machine-made labels with their confidence."""
    benchmark: tuple[Benchmark, ...] = ()
    """A card writes one, or a list of them; none: nothing of the dataset is held out to measure models on."""
    image_folders: dict[str, str] = Field(default_factory=dict)
    """Split -> folder of its images below the raw folder, where the labels do not name it."""
    exif_orientation: Literal["ignored"] | None = None
    """ignored: labels in pixels refer to images as stored. None: nobody knows, and one that its EXIF tag turns is left
    out."""
    shard_size: int = Field(gt=0, le=10_000)
    """Samples per tar."""
    errata: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    @field_validator("benchmark", mode="before")
    @classmethod
    def _as_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, dict) else value

    @property
    def meters_per_unit(self) -> float:
        if self.units is None:
            raise CatalogError(f"{self.name}: the card has units: null, so it has no lengths in meters")
        return {"m": 1.0, "cm": 0.01, "mm": 0.001}[self.units]

    def fingertip_vertices_of(self, side: Side) -> str | None:
        """The fingertip vertices that annotated tips of this side are, a key of `FINGERTIP_VERTICES`."""
        return (self.fingertip_vertices_left if side == "left" else None) or self.fingertip_vertices

    @property
    def fingertips(self) -> dict[Side, str | None]:
        """`fingertip_vertices_of` each side."""
        return {"right": self.fingertip_vertices_of("right"), "left": self.fingertip_vertices_of("left")}

    def digest(self) -> str:
        """12 hex digits over every fact that decides a sample's content (no prose); part of every shard plan."""
        prose = {"title", "license", "how_to_get", "errata", "sources", "benchmark", "default_splits"}
        text = json.dumps(self.model_dump(mode="json", exclude=prose), sort_keys=True)
        return short_digest(text)

    def check_split(self, split: str) -> None:
        if split not in self.splits:
            raise CatalogError(f"{self.name} has no split {split!r}; its splits are {', '.join(self.splits)}")


def catalog_dirs() -> list[Path]:
    """Folders of `$MASKHAND_CATALOG`, else the repository's `datasets/`; CatalogError when one of them is not there."""
    given = os.environ.get("MASKHAND_CATALOG")
    folders = [Path(word) for word in given.split(os.pathsep)] if given else [_OWN]
    for folder in folders:
        if not folder.is_dir():
            raise CatalogError(
                f"{folder}: there is no catalog here; set MASKHAND_CATALOG to the repository's datasets/, or to "
                f"several such folders with {os.pathsep!r} between them"
            )
    return folders


def names() -> list[str]:
    """All datasets of the catalog."""
    return sorted({card.parent.name for folder in catalog_dirs() for card in folder.glob("*/card.yaml")})


def load_spec(name: str) -> DatasetSpec:
    """Read the card of a dataset; CatalogError when it is unknown or its card does not fit. The first folder wins."""
    path = None
    with contextlib.suppress(PathNameError):  # a name such as ../other is no dataset's
        cards = (folder / path_name(name) / "card.yaml" for folder in catalog_dirs())
        path = next((card for card in cards if card.is_file()), None)
    if path is None:
        raise CatalogError(f"unknown dataset {name!r}; {_nearest(name, names())}")
    try:
        values = read_yaml(path.read_bytes())
    except YamlError as error:
        raise CatalogError(f"{path}: {error}") from None
    if not isinstance(values, dict):
        raise CatalogError(f"{path}: expected a mapping of keys, found {type(values).__name__}")
    try:
        spec = DatasetSpec.model_validate(values)
    except ValidationError as error:
        raise CatalogError(f"{path}: " + "; ".join(_sentence(e) for e in error.errors())) from None
    _check_keys(path, spec)
    return spec


def _check_keys(path: Path, spec: DatasetSpec) -> None:
    if spec.name != path.parent.name:
        raise CatalogError(f"{path}: name is {spec.name!r}, expected its folder's name {path.parent.name!r}")
    for key, value, known in (
        ("joint_order", spec.joint_order, JOINT_ORDERS),
        ("axes", spec.axes, AXES_TO_OPENCV),
        ("fingertip_vertices", spec.fingertip_vertices, FINGERTIP_VERTICES),
        ("fingertip_vertices_left", spec.fingertip_vertices_left, FINGERTIP_VERTICES),
    ):
        if value is not None and value not in known:
            raise CatalogError(f"{path}: {key} is {value!r}; {_nearest(value, list(known))}")
    named = {
        "default_splits": spec.default_splits,
        "images_per_annotation": tuple(spec.images_per_annotation),
        "benchmark.splits": tuple(s for b in spec.benchmark for s in (*b.splits, *b.subsets.values())),
    }
    for key, splits in named.items():
        for split in splits:
            if split not in spec.splits:
                raise CatalogError(f"{path}: {key}.{split}: {_nearest(split, list(spec.splits))}")


def _sentence(error: Any) -> str:
    key = ".".join(part for part in error["loc"] if isinstance(part, str))
    if error["type"] != "extra_forbidden":
        return f"{key}: {error['msg']}"
    parts: dict[tuple[str, ...], type[BaseModel]] = {
        ("license",): License,
        ("mano",): ManoConvention,
        ("filters",): LabelFilters,
        ("benchmark",): Benchmark,
    }
    known = parts.get(tuple(part for part in error["loc"][:-1] if isinstance(part, str)), DatasetSpec)
    return f"{key}: unknown key; {_nearest(str(error['loc'][-1]), list(known.model_fields))}"


def _nearest(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
