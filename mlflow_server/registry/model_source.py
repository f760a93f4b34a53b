"""Registered models as the core asks for them: :class:`nfbmr.model_source.ModelSource`."""

from __future__ import annotations

import shutil
from pathlib import Path

from mlflow_server.destination import Destination
from mlflow_server.registry.model_reference import ModelReference, model_in
from mlflow_server.registry.registry import Registry
from nfbmr.model_source import ServedModel


class RegistrySource:
    """A registered model: what its name means at the moment.

    Args:
        text: As :meth:`ModelReference.of` reads it.
        folder: Versions are fetched into it.
        uri: The tracking server; else as everywhere.

    Raises:
        RegistryError: The text names no model.
    """

    def __init__(self, text: str, folder: Path, uri: str | None = None) -> None:
        self._named = ModelReference.of(text)
        self._registry = Registry(Destination.resolve(uri))
        self._folder = folder
        self._fetched = 0

    def poll(self, known: str | None) -> ServedModel | None:
        """The version, fetched if it is another one."""
        version = self._named.version(self._registry)
        key = f"{version} {version.model_id}"
        if key == known:
            return None
        self._fetched += 1
        place = self._registry.download(version, self._folder / f"{self._fetched}")
        return ServedModel(version.name, version.number, model_in(place), key)

    def release(self, model: ServedModel) -> None:
        """Remove its files."""
        place = next(folder for folder in model.folder.parents if folder.parent == self._folder)
        shutil.rmtree(place, ignore_errors=True)
