"""Fine-tuning: the weights of an exported model as the initial weights of a training (`training.start_from`)."""

from __future__ import annotations

from pathlib import Path

from maskhand.config import ConfigError
from maskhand.models.network import HandNetwork
from maskhand.models.open_folder import open_model_folder
from maskhand.models.weight_files import WeightFileError, load_state_dict, misfit
from maskhand.shipped_models import OPEN

_TOKENIZER = "tokenizer."


def load_initial(model: HandNetwork, start_from: str, assets: str | Path) -> None:
    """Load all weights of an exported model into `model`, except the tokenizer, which must be the same.

    A model on the meta device (a dry run) has no tokenizer to compare. Raises ConfigError when the file is missing or
    unreadable, and when a weight is missing, unknown, of another shape, or of another tokenizer.
    """
    path = (open_model_folder(assets) if start_from == OPEN else Path(start_from)) / "model.pt"
    try:
        stored = load_state_dict(path)
    except FileNotFoundError:
        raise ConfigError(
            f"training.start_from={start_from}: no file {path}; give the folder `export` of a training, or {OPEN}"
        ) from None
    except (OSError, WeightFileError) as error:
        raise ConfigError(f"training.start_from={start_from}: {path}: {error}") from error
    wanted = {name: w for name, w in model.state_dict().items() if not name.startswith("mano.")}
    if found := misfit(wanted, stored):
        raise ConfigError(
            f"training.start_from={start_from}: its weights do not fit ({found}); take its recipe's model and "
            "tokenizer settings, or start from the encoder alone: model.backbone.checkpoint"
        )
    tokens = [(w, stored[name]) for name, w in wanted.items() if name.startswith(_TOKENIZER) and not w.is_meta]
    if not all(w.equal(other.to(w)) for w, other in tokens):
        raise ConfigError(
            f"training.start_from={start_from}: it was trained on other tokens; give the tokenizer that it was "
            f"trained on, for {OPEN} --tokenizer open_model"
        )
    model.load_state_dict({name: w for name, w in stored.items() if not name.startswith(_TOKENIZER)}, strict=False)
