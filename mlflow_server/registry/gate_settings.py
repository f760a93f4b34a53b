"""What each gate holds a model to: defaults, a YAML file, ``--gate name=value``; the later wins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from nfbmr import yaml_text
from nfbmr.config import Fraction, Section
from nfbmr.errors import ConfigError
from nfbmr.fields import did_you_mean, fields_of, keys
from nfbmr.text import count

Limit = Annotated[float, Field(ge=0)] | Literal["off"]
"""A number that a version has to keep, or off."""
Switch = Literal["on", "off"]
"""Whether a gate is asked."""


class GateSettings(Section):
    """The gates of a promotion.

    Example:
        >>> GateSettings().latency, GateSettings(latency="off").latency
        (3000.0, 'off')
    """

    reproduces: Limit = Field(
        1e-3, description="in a clean process: how far a score may be from the recorded one, relatively"
    )
    same_data: Switch = Field(
        "on", description="same images and split as the champion's evaluation, or both evaluated again"
    )
    not_worse: Limit = Field(
        0.02, description="by how much the metric may be lower than the champion's, at the interval's end"
    )
    not_peeked: Switch = Field("on", description="nothing was chosen on the test set")
    no_leak: Switch = Field("on", description="the audit found no test image whose part was trained on")
    false_rejects: Limit = Field(
        0.25, description="share of good validation images above the threshold, at the interval's upper end"
    )
    latency: Limit = Field(
        3000.0, description="milliseconds an image on this machine, prepared to score parts"
    )
    size: Limit = Field(500.0, description="megabytes of the whole model, backbone included")
    metric: Literal["image_auroc", "image_ap", "image_f1", "image_precision", "image_recall"] = Field(
        "image_auroc", description="what not_worse compares"
    )
    confidence: Fraction = Field(0.95, description="of the intervals")
    resamples: int = Field(2000, ge=100, le=100_000, description="of the paired bootstrap")

    def limit(self, gate: str) -> float | None:
        """What a gate with a number is held to; None where it is off."""
        value = getattr(self, gate)
        return None if value == "off" else float(value)

    def is_on(self, gate: str) -> bool:
        """Whether a gate is used."""
        return bool(getattr(self, gate) != "off")


GATES = tuple(key.name for key in fields_of(GateSettings) if key.allowed.endswith("off"))
"""Names of the gates, in the order in which they are reported."""


def gate_settings(file: Path | None = None, assignments: Sequence[str] = ()) -> GateSettings:
    """Read what was asked for.

    Args:
        file: YAML: a name and a value a line.
        assignments: ``name=value`` texts of ``--gate``.

    Raises:
        ConfigError: Unknown names, or values that cannot be; all of them, with the nearest right name.

    Example:
        >>> gate_settings(assignments=["not-worse=0.05", "latency=off"]).not_worse
        0.05
    """
    problems: list[str] = []
    given: dict[str, tuple[Any, str]] = {}
    for name, value, origin in (*_of_file(file, problems), *_of_options(assignments, problems)):
        known = name.replace("-", "_")
        if known in keys(GateSettings):
            given[known] = (value, origin)
        else:
            hint = did_you_mean(known, keys(GateSettings)) or f"; gates are {', '.join(GATES)}"
            problems.append(f"{name} ({origin}): no such gate{hint}")
    settings = GateSettings()
    try:
        settings = GateSettings.model_validate({name: value for name, (value, _) in given.items()})
    except ValidationError as error:
        for name in dict.fromkeys(str(detail["loc"][0]) for detail in error.errors()):
            value, origin = given[name]
            allowed = keys(GateSettings)[name].allowed
            problems.append(f"{name} = {yaml_text.inline(value)[:60]} ({origin}): should be {allowed}")
    if problems:
        what = (
            problems[0] if len(problems) == 1 else f"{count(len(problems), 'mistake')}: {'; '.join(problems)}"
        )
        raise ConfigError(what, fix="see what gates there are: nfbmr models gates")
    return settings


def as_yaml(settings: GateSettings) -> str:
    """The settings as a file that can be given again, with what each is for.

    Example:
        >>> print(as_yaml(GateSettings()).splitlines()[-1])
        resamples: 2000          # of the paired bootstrap
    """
    lines = []
    for key in fields_of(GateSettings):
        setting = f"{key.name}: {yaml_text.inline(getattr(settings, key.name))}"
        lines.append(f"{setting:<24} # {key.description}")
    return "\n".join(lines)


def _of_file(file: Path | None, problems: list[str]) -> Iterator[tuple[str, Any, str]]:
    if file is None:
        return
    try:
        document = yaml_text.parse(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{file}: cannot be read ({getattr(error, 'strerror', None) or error})")
        return
    except yaml_text.YamlError as error:
        problems.append(f"{file}: not a YAML file ({error})")
        return
    if not isinstance(document.value, Mapping):
        problems.append(f"{file}: should hold a name and a value a line")
        return
    for name, value in document.value.items():
        yield str(name), value, f"{file}:{document.lines.get(str(name), 1)}"


def _of_options(assignments: Sequence[str], problems: list[str]) -> Iterator[tuple[str, Any, str]]:
    for assignment in assignments:
        name, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals or not name:
            problems.append(
                f"--gate {assignment}: should read NAME=VALUE, such as latency=200 or latency=off"
            )
            continue
        try:
            yield name, yaml_text.parse(text).value, "--gate"
        except yaml_text.YamlError as error:
            problems.append(f"--gate {assignment}: the value is not YAML ({error})")
