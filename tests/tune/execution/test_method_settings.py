"""A trial's method brings its own defaults: below the user's own settings, above the package's."""

from __future__ import annotations

import pytest

from nfbmr.api import configure
from nfbmr.config import Config
from nfbmr.layers import Layer, set_layer
from nfbmr.methods.padim import PaDiMConfig
from nfbmr.methods.patchcore import PatchCoreConfig
from nfbmr.methods.registry import METHODS, MethodDefaults, named_configurations
from nfbmr.resolve import Resolved, resolve
from tune.ablation.comparison import comparison_spec
from tune.ablation.plan import AblationPlan, plan_ablation
from tune.ablation.spec import parse_spec
from tune.execution.method_settings import chosen_layer, problem_with, user_layer, with_settings
from tune.search.plan import SweepPlan
from tune.search.space import Space


def resolved(*assignments: str) -> Resolved:
    return resolve([set_layer(assignments)], methods=MethodDefaults())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("base", ["nf-bmr", "patchcore", "differnet"])
def test_a_method_runs_in_its_own_defaults_whatever_the_base(method, base):
    start = configure(settings={"method": base})
    assert with_settings(start, {"method": method}) == configure(settings={"method": method})


@pytest.mark.parametrize("method", METHODS)
def test_what_the_user_chose_stays_with_every_method(method):
    given = resolved("features.batch=3", "train.flow.epochs=7", "seed=5")
    config = with_settings(given.config, {"method": method}, chosen_layer(given).values)
    own = {"features.batch": 3, "train.flow.epochs": 7, "seed": 5, "method": method}
    assert config == configure(settings=own)


def test_a_choice_that_equals_the_default_is_a_choice():
    given = resolved("features.scales=[1, 0.5, 0.25]")  # the default of nf-bmr
    assert with_settings(given.config, {"method": "padim"}).features.scales == (1.0,)
    chosen = tuple(chosen_layer(given).values)
    assert chosen == ("features.scales",)
    assert with_settings(given.config, {"method": "padim"}, chosen).features.scales == (1.0, 0.5, 0.25)


def test_what_a_trial_sets_is_above_the_users_own():
    given = resolved("patchcore.coreset=0.5", "features.size=128")
    settings = {"method": "patchcore", "patchcore.coreset": 0.1}
    config = with_settings(given.config, settings, chosen_layer(given).values)
    assert (PatchCoreConfig.of(config).coreset, config.features.size) == (0.1, 128)
    assert config.features.taps == ("blocks.2", "blocks.4")


def test_a_configuration_made_by_hand_is_kept_as_it_is():
    config = Config(flow={"blocks": 3}, data={"layout": {"good": "ok/*.png", "defect": "ng/(.*)/.*"}})
    assert with_settings(config, {}) == config
    assert with_settings(config, {"method": "padim"}).data.layout == config.data.layout
    assert user_layer(config).values["flow.blocks"] == 3


def test_patterns_on_the_command_line_are_chosen_whole():
    given = resolve([Layer("my.yaml", {"data": {"layout": {"good": "ok/*", "defect": "ng/(.*)/.*"}}})])
    assert chosen_layer(given).values["data.layout"]["good"] == "ok/*"


def test_a_named_configuration_stands_for_its_method():
    config = with_settings(configure(), {"method": "padim-published", "padim.channels": 50})
    assert config.method == "padim"
    assert config.features.backbone == named_configurations()["padim-published"]["features"]["backbone"]
    assert PaDiMConfig.of(config).channels == 50


def rows_of(plan: AblationPlan) -> dict[str, Config]:
    return {row.name: plan.row_config(row) for row in plan.spec.rows}


def test_compare_and_sweep_give_a_method_the_same_settings(textures, tmp_path):
    given = resolved(f"data.path={textures}", f"output={tmp_path}", "features.batch=3", "train.flow.epochs=7")
    compared = rows_of(plan_ablation(comparison_spec(), given, seeds=1, compares=True))
    space = Space.parse(f"method: {{choice: [{', '.join(METHODS)}]}}")
    sweep = SweepPlan("s", given.config, space, 12, chosen=tuple(chosen_layer(given).values))
    assert {method: sweep.config_of({"method": method}) for method in METHODS} == compared


def test_a_row_or_a_preset_that_names_a_method_brings_its_defaults(textures, tmp_path):
    given = resolved(f"data.path={textures}", f"output={tmp_path}", "features.batch=3")
    text = "rows: {ours: {method: nf}, bank: {method: patchcore, patchcore.coreset: 0.5}}"
    row = rows_of(plan_ablation(parse_spec(text, "t", "t.yaml"), given, seeds=1))["bank"]
    space = Space.parse("kind: {preset: {ours: {}, bank: {method: patchcore, patchcore.coreset: 0.5}}}")
    chosen = tuple(chosen_layer(given).values)
    assert (
        SweepPlan("s", given.config, space, 2, chosen=chosen).config_of(space.settings_of({"kind": "bank"}))
        == row
    )
    assert row.features.taps == ("blocks.2", "blocks.4")
    assert (row.features.scales, row.features.batch, PatchCoreConfig.of(row).coreset) == ((1.0,), 3, 0.5)


def test_rows_that_cannot_run_are_refused_all_at_once(textures, tmp_path):
    given = resolved(f"data.path={textures}", f"output={tmp_path}", "scoring.reduction=image")
    text = "rows: {bank: {method: patchcore}, gauss: {method: padim}, pooled: {method: differnet}}"
    with pytest.raises(Exception, match=r"2 problems") as caught:
        plan_ablation(parse_spec(text, "t", "t.yaml"), given, seeds=1)
    reason = str(caught.value)
    assert "gauss" in reason
    assert "pooled" in reason
    assert "no score of its own for the image" in reason


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"method": "differnet", "features.pooled": False, "features.test_rotations": 1},
            "features.pooled=true",
        ),
        ({"method": "padim", "scoring.reduction": "image"}, "no score of its own for the image"),
        ({"method": "spade", "features.taps": ["blocks.2"]}, "two taps or more"),
        ({"method": "nf", "scoring.weights": [1.0, 1.0, 1.0, 1.0, 1.0]}, "5 weights"),
        ({"method": "nf", "features.taps": ["blocks.77"]}, "blocks.77"),
    ],
)
def test_what_cannot_run_is_known_without_an_image(settings, words):
    problem = problem_with(configure(settings=settings))
    assert problem is not None
    assert words in problem


@pytest.mark.parametrize("method", METHODS)
def test_every_method_can_run_in_its_defaults(method):
    assert problem_with(configure(settings={"method": method})) is None
