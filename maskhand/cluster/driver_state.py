"""The driver's state that remote processes adopt: its settings, and the files that determine results.

Both are sent inside the pickled work. Ray's own mechanism for variables, `runtime_env`, would write passwords and keys
into the logs of every node and to the dashboard.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from maskhand import s3, storage
from maskhand.carried import CarriedFolder
from maskhand.hand.model_file import MANO_DIR_VARIABLE, hand_files

_PREFIXES = ("MASKHAND_", "AWS_", "MLFLOW_")
_ADDRESSES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
"""Not adopted: they may be relative, and workers get the tracking store's full address."""
_OF_THE_MACHINE = ("MASKHAND_CACHE", "AWS_CA_BUNDLE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE",
                   "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")  # fmt: skip
"""Machine-specific paths: a machine's own value takes precedence."""
_FOLDERS = (MANO_DIR_VARIABLE, "MASKHAND_WORKSPACE", "MASKHAND_CATALOG", "MASKHAND_CACHE")
"""Folders, or lists of folders like `$PATH`: made absolute, as workers have other current directories."""


@dataclass(frozen=True)
class DriverState:
    """Settings and files of a driver; picklable."""

    settings: Mapping[str, str] = field(repr=False)
    """Environment variables: ours, and the credentials and settings of S3 and MLflow."""
    folders: tuple[CarriedFolder, ...]

    @classmethod
    def of_this_process(cls, *folders: CarriedFolder) -> Self:
        """This process's settings, including its AWS profile's, and its hand models in addition to `folders`."""
        chosen = {k: v for k, v in os.environ.items() if k.startswith(_PREFIXES) and k not in _ADDRESSES}
        for name in _FOLDERS:
            if chosen.get(name):
                chosen[name] = os.pathsep.join(
                    str(Path(p).expanduser().absolute()) for p in chosen[name].split(os.pathsep)
                )
        if chosen.get("MASKHAND_SHARDS"):
            chosen["MASKHAND_SHARDS"] = storage.absolute(chosen["MASKHAND_SHARDS"])
        in_files = s3.settings_in_files()
        if "AWS_ACCESS_KEY_ID" in in_files:
            chosen.pop("AWS_PROFILE", None)  # other machines may not have it
        # Empty counts as unset, but overrides the other machine's variable, which may name another hand model.
        return cls({MANO_DIR_VARIABLE: "", **in_files, **chosen}, (hand_files(), *folders))

    def take_over(self) -> None:
        """Apply the settings and files to this process, for its lifetime. Raises OtherFileError, StorageError."""
        for name, value in self.settings.items():
            if name not in _OF_THE_MACHINE or not os.environ.get(name):
                os.environ[name] = value
        for folder in self.folders:
            folder.take_in()

    @contextmanager
    def taken_over(self) -> Iterator[None]:
        """As `take_over`, but restores the settings of this process when the block ends."""
        before = dict(os.environ)
        try:
            self.take_over()
            yield
        finally:
            for name in self.settings:
                os.environ.pop(name, None)
                if name in before:
                    os.environ[name] = before[name]
