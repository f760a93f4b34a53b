"""Sections that methods bring to the configuration: settings of their own, and of stages of their own.

Those of our methods are in every configuration. The table of methods lies above this package, so it is loaded
by its name, as what :mod:`nfbmr.neighbours` lists is. Sections of somebody else's method are known once the
method is loaded; a configuration holds them as plain values, so that it can be read where the method is not
installed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, ClassVar, NamedTuple, Protocol, Self

from pydantic_core import PydanticCustomError

from nfbmr.config.section import Section
from nfbmr.config.training import StageConfig
from nfbmr.neighbours import METHODS, load_object

log = logging.getLogger(__name__)

_settings: dict[str, type[MethodConfig]] = {}
_training: dict[str, StageConfig] = {}
_loads = 0


class MethodConfig(Section):
    """Settings of a method: a section of the configuration that the method brings, every key with a default.

    Attributes:
        section: The section's name, as in ``--set patchcore.coreset=0.1``.
    """

    section: ClassVar[str]

    @classmethod
    def of(cls, config: Section) -> Self:
        """A configuration's, defaults where it has none.

        Args:
            config: The run's :class:`~nfbmr.config.Config`.

        Raises:
            ValidationError: It was made without the method, and has what the method refuses.
        """
        sections = config.model_extra or {}
        # Until 2026-11-30 settings of a method of one's own were an untyped section `own`.
        given = sections.get(cls.section, sections.get("own", {}))
        return given if isinstance(given, cls) else cls.model_validate(given)


class BringsSections(Protocol):
    """A :class:`nfbmr.methods.method.Method`, as far as the configuration knows it."""

    @property
    def settings(self) -> type[MethodConfig] | None:
        """Class of its own section."""

    @property
    def training(self) -> Mapping[str, StageConfig]:
        """Defaults of its own stages, by their names."""


@cache
def our_settings() -> Mapping[str, type[MethodConfig]]:
    """Settings classes of our methods, by section."""
    methods: Mapping[str, BringsSections] = load_object(METHODS)
    classes = [method.settings for method in methods.values() if method.settings is not None]
    return {settings.section: settings for settings in classes}


def register_method(method: BringsSections) -> None:
    """Make the sections of somebody else's method known.

    Raises:
        ValueError: Its section has the name of one there is.
    """
    global _loads  # noqa: PLW0603 - a count of changes, for whoever caches what is derived from them
    if (settings := method.settings) is not None:
        if settings.section in our_settings():
            raise ValueError(f"its section {settings.section} is that of one of nfbmr's methods")
        other = _settings.get(settings.section, settings)
        if _place(other) != _place(settings):
            log.warning(
                "%s and %s share the section %s: what one says of it counts for both; give one another name",
                _place(other),
                _place(settings),
                settings.section,
            )
        _settings[settings.section] = settings
    _training.update(method.training)
    _loads += 1


def _place(settings: type[MethodConfig]) -> str:
    return f"{settings.__module__}:{settings.__qualname__}"


def loads() -> int:
    """How often sections were added: what is derived from them holds while this stays."""
    return _loads


def added_sections() -> Iterator[tuple[str, Section]]:
    """Dotted names and defaults of all sections that methods of others brought."""
    yield from ((name, settings()) for name, settings in _settings.items())
    yield from ((f"train.{stage}", section) for stage, section in _training.items())


class _Given(NamedTuple):
    """A section as somebody gave it, and what it should be."""

    settings: type[MethodConfig] | None
    keep: bool
    value: Any

    def __repr__(self) -> str:
        return repr(self.value)  # in messages of pydantic, which show what was given


def with_method_sections(values: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a configuration with our methods' sections in them, ready for :func:`checked_section`.

    Args:
        values: As given.
        fields: The configuration's own, which stay as they are.
    """
    inside = {name: value for name, value in values.items() if name in fields}
    outside = {name: value for name, value in values.items() if name not in fields}
    if not outside.get("own", True):  # of configurations from before methods had sections of their own
        del outside["own"]
    ours = {name: _Given(settings, False, outside.pop(name, {})) for name, settings in our_settings().items()}
    method = values.get("method", "nf-bmr")
    if isinstance(method, str) and method not in load_object(METHODS):
        # What a method means that is not at hand here is kept as it is.
        added = {name: _Given(_settings.get(name), True, value) for name, value in outside.items()}
        return {**inside, **ours, **added}
    # To one of our methods they say nothing, and who reads its configuration may not know them.
    unknown = {name: _Given(None, False, value) for name, value in outside.items() if name not in _settings}
    if isinstance(train := inside.get("train"), Mapping):
        inside["train"] = {name: value for name, value in train.items() if name not in _training}
    return {**inside, **ours, **unknown}


def is_ours(method: str) -> bool:
    """Whether a method is one of ours."""
    return method in load_object(METHODS)


def checked_section(given: _Given) -> MethodConfig | dict[str, Any]:
    """A method's section, validated: ours as its class, another's as plain values."""
    if given.settings is None:
        if given.keep and isinstance(given.value, Mapping):
            return dict(given.value)
        raise PydanticCustomError("extra_forbidden", "Extra inputs are not permitted")
    section = given.settings.model_validate(given.value)
    return section if given.settings in our_settings().values() else section.model_dump(mode="json")
