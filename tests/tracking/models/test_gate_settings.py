"""Gates are set by a file and by options, and a wrong name is told with the right one."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_server.registry.gate_settings import GATES, GateSettings, as_yaml, gate_settings
from nfbmr.errors import ConfigError


def test_defaults_use_every_gate() -> None:
    settings = gate_settings()
    assert settings == GateSettings()
    assert all(settings.is_on(gate) for gate in GATES)
    assert GATES == (
        "reproduces",
        "same_data",
        "not_worse",
        "not_peeked",
        "no_leak",
        "false_rejects",
        "latency",
        "size",
    )


def test_an_option_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "gates.yaml"
    file.write_text("latency: 50\nnot-worse: 0.1\nsame_data: off\nmetric: image_ap\n")
    settings = gate_settings(file, ["latency=20", "no_leak=off"])
    assert (settings.latency, settings.not_worse, settings.metric) == (20, 0.1, "image_ap")
    assert not settings.is_on("same_data")
    assert not settings.is_on("no_leak")
    assert settings.is_on("not_peeked")


def test_what_is_printed_can_be_given_again(tmp_path: Path) -> None:
    settings = gate_settings(assignments=["size=20", "not_peeked=off", "confidence=0.9"])
    file = tmp_path / "gates.yaml"
    file.write_text(as_yaml(settings))
    assert gate_settings(file) == settings


@pytest.mark.parametrize(
    ("assignment", "what"),
    [
        ("latencey=5", "did you mean latency"),
        ("speed=5", "gates are reproduces"),
        ("latency=fast", "a number of at least 0 or off"),
        ("latency=-1", "a number of at least 0 or off"),
        ("latency", "NAME=VALUE"),
        ("=5", "NAME=VALUE"),
        ("latency=[", "not YAML"),
        ("not_peeked=maybe", "one of on, off"),
        ("metric=auroc", "one of image_auroc"),
        ("confidence=1", "between 0 and 1"),
    ],
)
def test_mistakes_are_told(assignment: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        gate_settings(assignments=[assignment])
    assert "nfbmr models gates" in caught.value.fix


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    file = tmp_path / "gates.yaml"
    file.write_text("size: big\nlatencey: 5\n")
    with pytest.raises(ConfigError) as caught:
        gate_settings(file, ["no_leek=off"])
    text = str(caught.value)
    assert "3 mistakes" in text
    assert "gates.yaml:2" in text
    assert "did you mean no_leak" in text


@pytest.mark.parametrize("content", ["- latency\n", "latency: [\n", "a: 1\na: 2\n"])
def test_a_file_that_is_none(tmp_path: Path, content: str) -> None:
    file = tmp_path / "gates.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=r"gates\.yaml"):
        gate_settings(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        gate_settings(tmp_path / "none.yaml")
