"""A method outside the package: found by its name, and at home in runs, sweeps and ablations."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import ValidationError

import nfbmr
from nfbmr.config import Config, MethodConfig
from nfbmr.errors import ConfigError
from nfbmr.methods.method import Method
from nfbmr.methods.registry import epochs_of, method_named
from nfbmr.resolve import Layer, dump_yaml, flat, load_config, resolve

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
    summary = nfbmr.train(tiny(method=name, gaussian={"shrinkage": 0.2}))
    assert summary["method"] == name
    assert summary["selection"]["parts"] == ["distance"]
    (first, *_) = nfbmr.predict(summary["run_dir"], [Path(summary["dataset"]["source"])])
    assert first.score is not None


def test_its_settings_are_its_own(name: str, tiny: Callable[..., Config]) -> None:
    one, other = (nfbmr.train(tiny(method=name, gaussian={"shrinkage": value})) for value in (0.01, 100.0))
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


def test_its_keys_are_keys_like_any_other(name: str, tmp_path: Path) -> None:
    from click.shell_completion import ShellComplete

    from nfbmr.cli.config import config
    from tune.ablation.spec import parse_spec
    from tune.search.space import Space

    resolved = nfbmr.configure(settings={"method": name, "gaussian.shrinkage": 0.2})
    assert flat(resolved)["gaussian.shrinkage"] == 0.2
    assert "gaussian.shrinkage" not in flat(nfbmr.configure())
    with pytest.raises(ConfigError, match=r"gaussian.shrinkage = -1 .*: should be a number above 0"):
        nfbmr.configure(settings={"method": name, "gaussian.shrinkage": -1})
    with pytest.raises(ConfigError, match=r"did you mean gaussian.shrinkage\?"):
        nfbmr.configure(settings={"method": name, "gaussian.shrinkag": 1})
    said = CliRunner().invoke(config, ["--method", name, "--describe"]).output
    assert "- `gaussian.shrinkage`: a number above 0; default `0.05`; share of" in said
    line = ShellComplete(config, {}, "nfbmr config", "_NFBMR_COMPLETE")
    offered = line.get_completions(["--method", name, "--set"], "gauss")
    assert [item.value for item in offered] == ["gaussian.shrinkage="]
    space = Space.parse(f"method: {{choice: ['{name}']}}\ngaussian.shrinkage: {{float: [0.1, 0.2]}}")
    assert [dimension.name for dimension in space.dimensions] == ["method", "gaussian.shrinkage"]
    text = f"rows: {{a: {{method: '{name}', gaussian.shrinkage: 0.3}}}}"
    assert parse_spec(text, "x", "x.yaml").rows[0].settings["gaussian.shrinkage"] == 0.3


def test_a_run_can_be_read_where_its_method_is_not(name: str, tmp_path: Path) -> None:
    config = nfbmr.configure(settings={"method": name, "gaussian.shrinkage": 0.2})
    elsewhere = tmp_path / "config.yaml"
    elsewhere.write_text(dump_yaml(config).replace(name, "nowhere:METHOD").replace("gaussian:", "strange:"))
    assert flat(load_config(elsewhere))["strange.shrinkage"] == 0.2
    elsewhere.write_text("flow: {blocks: 3}\nstrange: {shrinkage: 0.2}\n")
    with pytest.raises(ConfigError, match="strange: no such key"):
        load_config(elsewhere)


def test_a_configuration_of_ours_says_nothing_of_a_method_that_its_reader_may_not_have(name: str) -> None:
    base = nfbmr.configure(settings={"method": name, "gaussian.shrinkage": 0.2})
    row = Config.model_validate({**base.model_dump(mode="json"), "method": "padim"})
    program = (
        "import sys; from nfbmr.config import Config; print(Config.model_validate_json(sys.argv[1]).method)"
    )
    completed = subprocess.run(
        [sys.executable, "-c", program, row.model_dump_json()], capture_output=True, text=True, check=True
    )
    assert completed.stdout.strip() == "padim"


def test_a_method_that_is_no_text_is_refused_in_words() -> None:
    with pytest.raises(ConfigError, match=r"method = \[nf, nf-bmr\]"):
        nfbmr.configure(settings={"method": ["nf", "nf-bmr"]})


def test_ours_have_no_stages_that_they_do_not_have() -> None:
    with pytest.raises(ValidationError, match=r"train\.flo: nf-bmr has no such stage"):
        Config.model_validate({"train": {"flo": {"epochs": 3}}})


@pytest.mark.parametrize("section", ["seed", "features", "own", "my.part"])
def test_a_section_cannot_be_called_what_the_configuration_has(section: str) -> None:
    settings = type("Settings", (MethodConfig,), {"section": section, "__module__": __name__})
    with pytest.raises(ValueError, match="section cannot be called"):
        Method(title="", source="", networks="a:b", stages=(), settings=settings)


def test_settings_from_before_methods_had_sections_are_read(name: str, tmp_path: Path) -> None:
    module = importlib.import_module(name.partition(":")[0])
    old = tmp_path / "config.yaml"
    old.write_text(f"method: '{name}'\nown: {{shrinkage: 0.2}}\n")
    assert module.GaussianConfig.of(load_config(old)).shrinkage == 0.2
    old.write_text("method: padim\nown: {}\n")
    assert load_config(old) == Config(method="padim")


def test_a_section_cannot_take_the_name_of_one_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = EXAMPLE.read_text(encoding="utf-8").replace('"gaussian"', '"padim"')
    module = f"taken_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{module}.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="its section padim is that of one of nfbmr's methods"):
        method_named(f"{module}:METHOD")


DENSITY = """
from nfbmr.config import StageConfig
from nfbmr.flows.flow import Flow
from nfbmr.methods.method import Method
from nfbmr.methods.networks import AnomalyModel, only
from nfbmr.training.stages import FlowStage


class Density(FlowStage):
    name = "density"


class OneDensity(AnomalyModel):
    def __init__(self, shapes, config):
        super().__init__(shapes, config)
        self.stages = (Density(Flow(only(shapes, config.method), config.flow, seed=config.seed)),)


METHOD = Method(
    title="a flow under another name",
    source="a test",
    networks=f"{__name__}:OneDensity",
    stages=("density",),
    training={"density": StageConfig(epochs=2, batch=4)},
)
"""


def test_a_stage_has_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Callable[..., Config]
) -> None:
    module = f"density_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{module}.py").write_text(DENSITY, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    config = tiny(method=f"{module}:METHOD", train__density__epochs=3)
    assert (flat(config)["train.density.batch"], epochs_of(config)) == (4, 3)
    summary = nfbmr.train(config)
    run = Path(summary["run_dir"])
    assert (run / "model" / "density.safetensors").exists()
    assert load_config(run / "config.yaml") == config.model_copy(
        update={"features": load_config(run / "config.yaml").features}
    )
