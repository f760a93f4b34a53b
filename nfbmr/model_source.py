"""Where a trained model comes from: the folder of a run, or a registry that knows it by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nfbmr.neighbours import REGISTRY_SOURCE, load_object
from nfbmr.paths import RunPaths


@dataclass(frozen=True)
class ServedModel:
    """A model on this machine.

    Attributes:
        name: Name of the registered model, or of the run.
        version: Version of the registered model.
        folder: Folder of networks and scorer.
        key: What tells it from any other.
    """

    name: str
    version: str | None
    folder: Path
    key: str

    def __str__(self) -> str:
        return self.name if self.version is None else f"{self.name}/{self.version}"


class ModelSource(Protocol):
    """Where models come from; may be called in a thread of its own."""

    def poll(self, known: str | None) -> ServedModel | None:
        """The model that is meant now, fetched; None where it is the one with the key `known`.

        Raises:
            NfbmrError: It cannot be had now.
        """
        ...

    def release(self, model: ServedModel) -> None:
        """Its files are not needed any more."""
        ...


class RunSource:
    """A finished run, which stays what it is.

    Args:
        folder: Folder of the run, or of its model alone.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        model = RunPaths(self._folder).model
        self._model = model if model.exists() else self._folder

    def poll(self, known: str | None) -> ServedModel | None:
        """The run's model, once."""
        return None if known else ServedModel(self._folder.name, None, self._model, str(self._folder))

    def release(self, model: ServedModel) -> None:
        """It stays where it is."""


def model_source(text: str, folder: Path, uri: str | None = None) -> ModelSource:
    """What people write for a model, as the place to have it from.

    Args:
        text: The folder of a finished run or of its model; else a registered model: ``NAME``,
            ``NAME@ALIAS`` or ``NAME/VERSION``.
        folder: Where a registered model's files are put.
        uri: Address of the registry's server; else its default.

    Raises:
        NfbmrError: It can be neither, or the registry cannot be used.
    """
    path = Path(text)
    if RunPaths(path).model.exists() or (path / "model.json").exists():
        return RunSource(path)
    source: ModelSource = load_object(REGISTRY_SOURCE)(text, folder, uri)
    return source
