"""What people write for a registered model - ``NAME``, ``NAME@alias``, ``NAME/3`` - and what it means now."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlflow_server.destination import Destination
from mlflow_server.registry import CHAMPION, Registry, Version
from nfbmr.errors import RegistryError


@dataclass(frozen=True)
class Named:
    """A registered model as it was written.

    Attributes:
        name: Of the registered model.
        alias: That is followed; None where a version was named.
        number: Of the version; None where an alias is followed.
    """

    name: str
    alias: str | None = CHAMPION
    number: str | None = None

    @classmethod
    def of(cls, text: str) -> Named:
        """Read it; MLflow's own ``models:/`` before it does not matter.

        Raises:
            RegistryError: It names no model.

        Example:
            >>> Named.of("parts"), Named.of("models:/parts/3")
            (Named(name='parts', alias='champion', number=None), Named(name='parts', alias=None, number='3'))
        """
        plain = text.removeprefix("models:/")
        name, at, alias = plain.partition("@")
        if at:
            found = cls(name, alias)
        else:
            name, slash, number = plain.partition("/")
            found = cls(name, None, number) if slash else cls(name)
        if not found.name or not (found.alias or (found.number or "").isdigit()):
            raise RegistryError(
                "neither a registered model nor the folder of a finished run",
                where=text,
                fix="write NAME, NAME@champion, NAME/3, or a folder that nfbmr train has made",
            )
        return found

    def version(self, registry: Registry) -> Version:
        """The version that is meant now.

        Raises:
            RegistryError: There is none.
        """
        if self.number is not None:
            return registry.version(self.name, self.number)
        assert self.alias is not None
        found = registry.at(self.name, self.alias)
        if found is None:
            raise RegistryError(
                f"no version is the {self.alias}",
                where=self.name,
                fix=f"promote one: nfbmr models promote {self.name} VERSION"
                + ("" if self.alias == CHAMPION else f" --alias {self.alias}")
                + f"; or name one: {self.name}/1",
            )
        return found


def model_in(place: Path) -> Path:
    """The networks and the scorer in the folder of a downloaded version.

    Raises:
        RegistryError: It is not a model of nfbmr's.
    """
    folder = place / "artifacts" / "model"
    if not (folder / "model.json").exists():
        raise RegistryError(
            "not a model of nfbmr's", where=place.name, fix="register the run with nfbmr models register"
        )
    return folder


@contextmanager
def fetched(text: str, uri: str | None = None) -> Iterator[Path]:
    """The networks and the scorer of a registered model, on this machine while the block runs.

    Args:
        text: As :meth:`Named.of` reads it.
        uri: The tracking server; else as everywhere.

    Raises:
        RegistryError: There is no such version, or the server cannot be used.
    """
    named = Named.of(text)
    registry = Registry(Destination.resolve(uri))
    version = named.version(registry)
    with tempfile.TemporaryDirectory(prefix="nfbmr-model-") as folder:
        yield model_in(registry.download(version, Path(folder)))
