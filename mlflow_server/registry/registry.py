"""Registered models: their versions, aliases and tags, and what is in them.

Everything goes through an ``MlflowClient`` of one destination; no global address is set.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_server.client import HOPELESS, connect
from mlflow_server.destination import Destination, without_password
from nfbmr.errors import NfbmrError, RegistryError
from nfbmr.fields import suggestion

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

log = logging.getLogger(__name__)

_MODEL_ID = "nfbmr.model_id"
HISTORY_RUN = "nfbmr.history_run"
"""The tag of a registered model that names the run with its history."""
CHAMPION = "champion"
"""The alias of the version that is used."""
ATTEMPTS = 3
"""At a row that others may be making at the same moment."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,99}")
_RESERVED = re.compile(r"latest|v\d+", re.IGNORECASE)


@dataclass(frozen=True)
class Version:
    """One version of a registered model.

    Attributes:
        name: Name of the registered model.
        number: As MLflow counts; it is text there.
        run_id: MLflow's name for the run that it comes from.
        source: Where its files are.
        created: In milliseconds since 1970.
        tags: What is known of it at a glance.
        aliases: That point to it.
    """

    name: str
    number: str
    run_id: str
    source: str
    created: int
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    @property
    def model_id(self) -> str:
        """MLflow's name for the logged model; empty where the version was not registered by nfbmr.

        A number alone does not say which model it is: a registered model that was deleted and made anew
        counts from 1 again. Within one, MLflow gives no number twice, not even a deleted last version's.
        """
        return self.tags.get(_MODEL_ID, "")

    def __str__(self) -> str:
        return f"{self.name}/{self.number}"


@dataclass(frozen=True)
class Registered:
    """A registered model.

    Attributes:
        aliases: Alias to version number.
    """

    name: str
    description: str
    tags: Mapping[str, str]
    aliases: Mapping[str, str]


class Registry:
    """The registered models of a tracking server.

    Args:
        destination: Which.
    """

    def __init__(self, destination: Destination) -> None:
        self.destination = destination
        self.address = without_password(destination.uri)
        with self.asking():
            self.client: MlflowClient = connect(destination)

    def models(self) -> list[Registered]:
        """All of them, by name."""
        models: list[Registered] = []
        token = None
        while True:
            with self.asking():
                page = self.client.search_registered_models(max_results=100, page_token=token)
            models += map(_registered, page)
            token = page.token
            if not token:
                return sorted(models, key=lambda model: model.name)

    def model(self, name: str) -> Registered:
        """The registered model of that name.

        Raises:
            RegistryError: There is none; the nearest names are given.
        """
        registered = self.find(name)
        if registered is None:
            names = [model.name for model in self.models()]
            otherwise = f"there are {', '.join(names)}" if names else "nfbmr models register RUN --name NAME"
            raise RegistryError(
                "no registered model of that name",
                where=f"{name} on {self.address}",
                fix=suggestion(name, names, otherwise),
            )
        return registered

    def find(self, name: str) -> Registered | None:
        """The registered model of that name, if there is one."""
        from mlflow.exceptions import MlflowException

        with self.asking():
            try:
                return _registered(self.client.get_registered_model(name))
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                return None

    def versions(self, name: str) -> list[Version]:
        """All versions, the first one first."""
        versions: list[Version] = []
        aliases = self.model(name).aliases
        token, quoted = None, name.replace("'", "''")
        while True:
            with self.asking():
                page = self.client.search_model_versions(
                    f"name = '{quoted}'", max_results=100, page_token=token
                )
            versions += (_version(version, aliases) for version in page)
            token = page.token
            if not token:
                return sorted(versions, key=lambda version: int(version.number))

    def version(self, name: str, number: str) -> Version:
        """A version by its number.

        Raises:
            RegistryError: There is none.
        """
        versions = self.versions(name)
        for version in versions:
            if version.number == number:
                return version
        numbers = ", ".join(version.number for version in versions) or "none yet"
        raise RegistryError("no such version", where=f"{name}/{number}", fix=f"versions are {numbers}")

    def at(self, name: str, alias: str) -> Version | None:
        """The version that an alias points to, if there is one."""
        number = self.model(name).aliases.get(alias)
        return None if number is None else self.version(name, number)

    def create(self, name: str, description: str, tags: Mapping[str, str]) -> bool:
        """Make a registered model.

        Returns:
            Whether it was made; False where there is one of that name already.

        Raises:
            RegistryError: The name cannot be one, or the server cannot be used now.
        """
        from mlflow.exceptions import MlflowException

        check_name(name)
        with self.asking():
            try:
                self.client.create_registered_model(name, tags=dict(tags), description=description)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                return False
        return True

    def add(
        self, name: str, model: LoggedModel, tags: Mapping[str, str], description: str
    ) -> tuple[Version, bool]:
        """Make a logged model a version; one that is a version already stays the version it is.

        Of several who do so at once the first counts: each looks once more, and takes its own back if a
        lower number has the model. Whoever has a higher number can see the lower one.

        Returns:
            The version, and whether this call made it.
        """
        first = self._first_of(name, model.model_id)
        if first is not None:
            return first, False
        with self.asking():
            # By its files, not as models:/m-..., which the client would look up on the global server.
            made = self.client.create_model_version(
                name,
                model.artifact_location,
                run_id=model.source_run_id,
                model_id=model.model_id,
                tags={**tags, _MODEL_ID: model.model_id},
                description=description,
            )
        first = self._first_of(name, model.model_id)
        if first is None or first.number == str(made.version):
            return _version(made, {}), True
        try:
            with self.asking():
                self.client.delete_model_version(name, str(made.version))
        except RegistryError as error:  # whoever may only write may not delete
            log.warning(
                "version %s of %s has the model of version %s: %s", made.version, name, first.number, error
            )
        return first, False

    def _first_of(self, name: str, model_id: str) -> Version | None:
        return next((version for version in self.versions(name) if version.model_id == model_id), None)

    def set_alias(self, name: str, alias: str, number: str) -> None:
        """Point an alias to a version, in one step on the server."""
        with self.asking():
            _although_others_do(lambda: self.client.set_registered_model_alias(name, alias, number))

    def tag_model(self, name: str, key: str, value: str) -> None:
        """Label a registered model."""
        with self.asking():
            _although_others_do(lambda: self.client.set_registered_model_tag(name, key, value))

    def tag_version(self, version: Version, key: str, value: str) -> None:
        """Label a version."""
        with self.asking():
            _although_others_do(
                lambda: self.client.set_model_version_tag(version.name, version.number, key, value)
            )

    def download(self, version: Version, folder: Path) -> Path:
        """Fetch a version's files, as whoever loads it would.

        Raises:
            RegistryError: They are not there.
        """
        import mlflow.artifacts

        folder.mkdir(parents=True, exist_ok=True)
        with self.asking():
            # An address models:/NAME/N would be looked up on the global server.
            source = self.client.get_model_version_download_uri(version.name, version.number)
            place = mlflow.artifacts.download_artifacts(
                artifact_uri=source, dst_path=str(folder), tracking_uri=self.destination.uri
            )
        return Path(place)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Whatever a call may raise becomes a :class:`RegistryError`."""
        try:
            yield
        except NfbmrError:
            raise
        except Exception as error:
            raise self._translated(error) from error

    def _translated(self, error: Exception) -> RegistryError:
        code = getattr(error, "error_code", "")
        text = " ".join(str(error).split())[:300] or type(error).__name__
        if code == "PERMISSION_DENIED":
            return RegistryError(
                "the tracking server does not permit it", where=self.address, fix="ask its administrator"
            )
        if code in HOPELESS:
            return RegistryError(f"the tracking server refuses it ({text})", where=self.address)
        return RegistryError(
            f"the tracking server cannot be used now ({text})",
            where=self.address,
            fix="check that it runs and that --uri or MLFLOW_TRACKING_URI names it",
        )


def check_name(name: str) -> None:
    """Refuse what cannot be the name of a registered model.

    Raises:
        RegistryError: It has other characters than can be typed anywhere.
    """
    if not _NAME.fullmatch(name):
        raise RegistryError(
            "not a name for a model", where=name, fix="use letters, digits, dots, dashes and underscores"
        )


def check_alias(alias: str) -> None:
    """Refuse what cannot be an alias.

    Raises:
        RegistryError: MLflow would not take it, or means something else by it.
    """
    if not _ALIAS.fullmatch(alias) or _RESERVED.fullmatch(alias):
        raise RegistryError(
            "not an alias",
            where=alias,
            fix="use letters, digits, dashes and underscores; latest, v1, v2, ... are MLflow's own",
        )


def _although_others_do(write: Callable[[], object]) -> None:
    """Write what somebody else may be writing for the first time as well.

    MLflow looks whether a row is there, and then makes it; the second of two who do so at once gets the
    database's complaint. Written once more, it is a row that is there.
    """
    from mlflow.exceptions import MlflowException

    for attempt in range(1, ATTEMPTS + 1):
        try:
            write()
            return
        except MlflowException as error:
            if attempt == ATTEMPTS or "unique constraint" not in str(error).lower():
                raise


def _registered(model: RegisteredModel) -> Registered:
    aliases: dict[str, Any] = model.aliases
    return Registered(
        model.name,
        model.description or "",
        dict(model.tags),
        {alias: str(number) for alias, number in aliases.items()},
    )


def _version(version: ModelVersion, aliases: Mapping[str, str]) -> Version:
    number = str(version.version)
    return Version(
        version.name,
        number,
        version.run_id or "",
        version.source or "",
        version.creation_timestamp or 0,
        dict(version.tags),
        tuple(sorted(alias for alias, points_to in aliases.items() if points_to == number)),
    )
