"""Errors for people: each says what was wrong, where, and what to do about it.

::

    NfbmrError                      anything a user can mend; the command line exits with 2
    ├── ConfigError                 an unknown key, a value out of range
    ├── DataError                   a folder or an image that cannot be used
    │   └── ImageError              one image; the others are still worked on
    │       └── ImageSizeError      one that would take too much memory; it was not decoded
    ├── BackboneError               a network or a tap that does not exist
    │   └── WeightsError            weights that cannot be had or do not fit
    ├── StoreError                  the feature store
    │   └── CorruptShardError       a shard whose bytes are not those that were written
    ├── CheckpointError             a checkpoint that is damaged or of another configuration
    ├── DivergenceError             a loss that is not finite, or runs away
    ├── OutputError                 a full disk, a folder that cannot be written
    ├── TrackingError               a tracker that cannot be used at all
    ├── RegistryError               a registered model that does not exist, or cannot be asked for
    │   ├── GateError               a model that a gate keeps from being promoted
    │   └── ConflictError           somebody else promoted a model meanwhile
    ├── ServerError                 a tracking server that cannot be had, or kept, as it was asked for
    ├── ServingError                a model that cannot be served as it was asked for
    ├── ExportError                 a model that would leave with other scores than its own
    ├── NothingFinishedError        a sweep of which every trial failed; the command line exits with 1
    └── MissingPackageError         an optional package that is not installed
    Pruned                          a trial that a sweep ends early, because others do better
    Interrupted                     Ctrl-C or SIGTERM after a checkpoint; the command line exits with 130
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import MappingProxyType

EXTRAS = MappingProxyType(
    {
        "ray": "ray",
        "mlflow": "mlflow",
        "sqlalchemy": "mlflow",
        "optuna": "sweep",
        "boto3": "server",
        "psycopg": "server",
        "onnx": "export",
        "onnxruntime": "export",
        "openvino": "export",
        "fastapi": "serve",
        "uvicorn": "serve",
        "av": "video",
    }
)
"""Which extra of this project brings a package that not everybody needs."""


class NfbmrError(Exception):
    """What was wrong, where, and what to do.

    Args:
        what: One sentence, in the user's terms.
        where: The file, key or object concerned.
        fix: What to do now, as an instruction.

    Example:
        >>> print(NfbmrError("no such folder", where="parts/", fix="check the path"))
        no such folder: parts/
          -> check the path
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str | Path | None = None, fix: str | None = None) -> None:
        self.what = what
        self.where = None if where is None else str(where)
        self.fix = fix
        text = what if self.where is None else f"{what}: {self.where}"
        super().__init__(text if fix is None else f"{text}\n  -> {fix}")


class ConfigError(NfbmrError):
    """An unknown key or an impossible value in a configuration."""


class DataError(NfbmrError):
    """A data set that cannot be used as it is."""


class ImageError(DataError):
    """One image that cannot be read; the rest of a batch goes on."""


class ImageSizeError(ImageError):
    """An image of so many pixels that it was not decoded."""


class BackboneError(NfbmrError):
    """A backbone or a tap that does not exist."""


class WeightsError(BackboneError):
    """Weights that cannot be had, or belong to another model."""


class StoreError(NfbmrError):
    """The feature store cannot be used."""


class CorruptShardError(StoreError):
    """A shard's bytes are not those that were written."""


class CheckpointError(NfbmrError):
    """A checkpoint that is damaged, or of another configuration."""


class DivergenceError(NfbmrError):
    """A training loss that is not finite, or runs away."""


class OutputError(NfbmrError):
    """Something could not be written: the disk is full, the folder is read-only."""


class TrackingError(NfbmrError):
    """A tracker that cannot be used at all (one that is merely down never stops a run)."""


class RegistryError(NfbmrError):
    """A registered model that does not exist, or a registry that cannot be used now."""


class GateError(RegistryError):
    """A model does not pass a gate on its way to an alias."""


class ConflictError(RegistryError):
    """Somebody else moved the alias since it was looked at."""


class ServerError(NfbmrError):
    """A tracking server that cannot be had, or kept, as it was asked for."""


class ServingError(NfbmrError):
    """A model that cannot be served as it was asked for: no port, no token, a model that does not load."""


class ExportError(NfbmrError):
    """A model cannot be exported, or what was exported would give other scores than its own."""


class NothingFinishedError(NfbmrError):
    """No trial of a sweep finished, so there is nothing to choose."""

    exit_code = 1


class MissingPackageError(NfbmrError):
    """An optional package is not installed."""


def missing_package(package: str, otherwise: str = "") -> MissingPackageError:
    """That a package is not installed, and what to install: an extra of this project where one brings it.

    Args:
        package: As it is imported.
        otherwise: What else could be done.

    Example:
        >>> print(missing_package("optuna"))
        a package is not installed: optuna
          -> pip install "nfbmr[sweep]"
    """
    extra = EXTRAS.get(package)
    wanted = package if extra is None else f'"nfbmr[{extra}]"'
    fix = f"pip install {wanted}" + (f", or {otherwise}" if otherwise else "")
    return MissingPackageError("a package is not installed", where=package, fix=fix)


def require_package(package: str, otherwise: str = "") -> None:
    """Say at once that a package is missing, rather than in the middle of what needs it.

    Args:
        package: As it is imported.
        otherwise: What else could be done.

    Raises:
        MissingPackageError: It is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise missing_package(package, otherwise)


class Pruned(NfbmrError):
    """A trial is ended early: its epochs so far do worse than those of other trials. Not a mistake."""


class Interrupted(NfbmrError):
    """A stop was asked for, a checkpoint is written, and the run can go on later."""

    exit_code = 130
