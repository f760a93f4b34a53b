"""What people write for a registered model - ``NAME``, ``NAME@alias``, ``NAME/3`` - and what it means now."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlflow_server.registry.registry import CHAMPION, Registry, Version
from nfbmr.errors import RegistryError


@dataclass(frozen=True)
class ModelReference:
    """A registered model as it was written.

    Attributes:
        name: Name of the registered model.
        alias: That is followed; None where a version was named.
        number: Number of the version; None where an alias is followed.
    """

    name: str
    alias: str | None = CHAMPION
    number: str | None = None

    @classmethod
    def of(cls, text: str) -> ModelReference:
        """Read it; MLflow's own ``models:/`` before it does not matter.

        Raises:
            RegistryError: It names no model.

        Example:
            >>> ModelReference.of("parts")
            ModelReference(name='parts', alias='champion', number=None)
            >>> ModelReference.of("models:/parts/3")
            ModelReference(name='parts', alias=None, number='3')
        """
        plain = text.removeprefix("models:/")
        name, at, alias = plain.partition("@")
        if at:
            reference = cls(name, alias)
        else:
            name, slash, number = plain.partition("/")
            reference = cls(name, None, number) if slash else cls(name)
        if not reference.name or not (reference.alias or (reference.number or "").isdigit()):
            raise RegistryError(
                "neither a registered model nor the folder of a finished run",
                where=text,
                fix="write NAME, NAME@champion, NAME/3, or a folder that nfbmr train has made",
            )
        return reference

    def version(self, registry: Registry) -> Version:
        """The version that is meant now.

        Raises:
            RegistryError: There is none.
        """
        if self.number is not None:
            return registry.version(self.name, self.number)
        assert self.alias is not None
        version = registry.at(self.name, self.alias)
        if version is None:
            raise RegistryError(
                f"no version is the {self.alias}",
                where=self.name,
                fix=f"promote one: nfbmr models promote {self.name} VERSION"
                + ("" if self.alias == CHAMPION else f" --alias {self.alias}")
                + f"; or name one: {self.name}/1",
            )
        return version


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
