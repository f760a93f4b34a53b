"""A method outside the package: found by its name, and at home in runs, sweeps and ablations."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nfbmr
from nfbmr.config import Config
from nfbmr.errors import ConfigError
from nfbmr.methods.table import method_named
from nfbmr.resolve import Layer, resolve

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "gaussian.py"


@pytest.fixture
def name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The example's, in the working directory under a name that no other test has imported."""
    module = f"own_{tmp_path.name}".replace("-", "_")
    shutil.copy(EXAMPLE, tmp_path / f"{module}.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return f"{module}:METHOD"


def test_it_is_trained_scored_and_used_like_any_other(name: str, tiny: Callable[..., Config]) -> None:
    summary = nfbmr.train(tiny(method=name, own={"shrinkage": 0.2}))
    assert summary["method"] == name
    assert summary["selection"]["parts"] == ["distance"]
    (first, *_) = nfbmr.predict(summary["run_dir"], [Path(summary["dataset"]["source"])])
    assert first.score is not None


def test_its_settings_are_its_own(name: str, tiny: Callable[..., Config]) -> None:
    one, other = (nfbmr.train(tiny(method=name, own={"shrinkage": value})) for value in (0.01, 100.0))
    assert one["metrics"] != other["metrics"]


def test_it_is_a_row_of_an_ablation_and_a_choice_of_a_space(name: str, tiny: Callable[..., Config]) -> None:
    from tune.ablation.ablation import new_ablation
    from tune.ablation.plan import plan_ablation
    from tune.ablation.spec import parse_spec
    from tune.execution.resources import Resources
    from tune.search.space import Space
    from tune.search.space_checks import check_space

    config = tiny()
    check_space(Space.parse(f"method: {{choice: [nf, '{name}']}}"), config)
    text = f"rows: {{flow: {{method: nf}}, own: {{method: '{name}'}}}}"
    base = resolve([Layer("base", _nested(config))])
    plan = plan_ablation(parse_spec(text, "own", "own.yaml"), base, name="own", seeds=1)
    table = new_ablation(plan, Resources(backend="local")).as_json()
    assert set(table["rows"]) == {"flow", "own"}


def _nested(config: Config) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude_defaults=True)


@pytest.mark.parametrize(
    ("asked", "said"),
    [("nowhere:METHOD", "nowhere"), ("json:dumps", "no method but a function"), ("nfbrm", "nf-bmr")],
)
def test_what_is_no_method_is_refused_with_the_reason(asked: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        method_named(asked)
