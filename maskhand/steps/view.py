"""The step that writes a page of hands: of a photo, or of what prediction wrote."""

from __future__ import annotations

from pathlib import Path

from maskhand import storage
from maskhand.device import accelerator
from maskhand.film.video import is_film
from maskhand.hand.model_file import default_hand_path, load_hand_model
from maskhand.models.bundle import ModelBundle
from maskhand.predict import PredictError, decode_photo, predict_images
from maskhand.predict.camera import photo_camera
from maskhand.predict.page.build import ViewedPicture, page
from maskhand.predict.reading import read_result
from maskhand.predict.records import Method
from maskhand.predict.run_files import PAGE
from maskhand.progress import Progress, silent
from maskhand.shipped_models import OPEN
from maskhand.steps.models import model_folder
from maskhand.workspace import Workspace

MOST_PICTURES = 24
"""Pictures of a result in one page; a third of a megabyte each."""


def view(
    workspace: Workspace,
    what: Path,
    out: Path | None,
    model: str | None = None,
    method: Method | None = None,
    hypotheses: int = 50,
    iterations: int = 5,
    progress: Progress = silent,
) -> Path:
    """Write the page of a photo, which is predicted first, or of a result (see `read_result`); returns its path.

    out: the HTML file; None: view.html in a result's folder, NAME_view.html beside its JSON, or here for a photo.
    model, method: None are the open model and the best method for it. hypotheses: hands drawn for each hand;
    iterations: T, whose passes over the tokens are shown. Raises PredictError.
    """
    if what.is_dir() or what.suffix in (".json", ".jsonl"):
        pictures, made_by = _of_result(what)
        default = what / PAGE if what.is_dir() else what.with_name(f"{what.stem}_view.html")
    elif is_film(what):
        raise PredictError(f"{what}: a film; `maskhand predict {what} --out out`, then `maskhand view out`")
    else:
        pictures, made_by = _of_photo(workspace, what, model, method, hypotheses, iterations)
        default = Path(f"{what.stem}_view.html")
    file = out or default
    storage.write_bytes_atomic(file, page(pictures, made_by, progress).encode())
    return file.resolve()


def _of_result(what: Path) -> tuple[list[ViewedPicture], str]:
    found = read_result(what, MOST_PICTURES)
    if not found.pictures:
        raise PredictError(f"{what}: it holds no hand")
    pictures = [
        ViewedPicture(
            one.name,
            one.image_rgb,
            one.hands,
            "" if one.image_rgb is not None else "The picture itself is not where it was; here are its hands alone.",
        )
        for one in found.pictures
    ]
    methods = sorted({hand.method for one in found.pictures for hand in one.hands})
    shown = f", {MOST_PICTURES} of {found.total} pictures" if found.total > MOST_PICTURES else ""
    return pictures, f"predicted by {' and '.join(methods)}{shown}; `maskhand view PHOTO` also shows tokens filled in"


def _of_photo(
    workspace: Workspace, photo: Path, model: str | None, method: Method | None, hypotheses: int, iterations: int
) -> tuple[list[ViewedPicture], str]:
    encoded = storage.read_bytes(photo)
    image = decode_photo(encoded, str(photo))  # before the model, which takes longer
    camera = photo_camera((image.shape[1], image.shape[0]), encoded=encoded)
    bundle = ModelBundle.load(model_folder(workspace, model or OPEN), device=accelerator())
    if method is None:
        own_hand = load_hand_model(default_hand_path("right")).digest == bundle.hand_digest
        method = "refine" if own_hand else "model"
    (hands,) = predict_images(
        [image],
        bundle,
        method=method,
        cameras=[camera],
        hypotheses=hypotheses,
        fill_in=iterations,
        assets=workspace.assets,
    )
    if not hands:
        raise PredictError(
            f"{photo}: no hand found; `maskhand predict --box` looks where you say, then view its result"
        )
    made_by = f"method {method}, model {bundle.digest} (recipe {bundle.recipe.name})"
    return [ViewedPicture(photo.name, image, hands)], made_by
