"""A workaround that makes timm importable when torchvision's compiled operators cannot be loaded.

torchvision has no CPU build in the package index: with a CPU build of torch, its `_C.so` misses CUDA libraries and does
not load. Importing torchvision (and so timm) then fails with "operator torchvision::nms does not exist", although the
models need none of its operators. Defining the two operators that torchvision registers fake kernels for is enough.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_named: list[torch.library.Library] = []  # a Library's definitions live as long as the object


def prepare_torchvision() -> bool:
    """Make `import torchvision` and `import timm` work; call it before either. True when the compiled operators loaded.

    Idempotent. Raises ImportError when torchvision is not installed.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ImportError("torchvision is not installed; install the project's requirements (constraints.txt)")
    if _named:
        return False
    try:
        torch.ops.load_library(str(Path(spec.origin).with_name("_C.so")))
    except OSError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(name + _SIGNATURE)
        _named.append(library)
        return False
    return True
