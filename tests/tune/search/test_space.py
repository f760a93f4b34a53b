"""Search spaces: what they say, what they refuse, and that whatever they suggest can be run."""

from __future__ import annotations

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfbmr.api import configure
from nfbmr.config import Config
from nfbmr.errors import ConfigError
from nfbmr.fields import keys
from nfbmr.methods.registry import METHODS
from nfbmr.resolve import values_of
from tune.execution.method_settings import with_settings
from tune.search.space import Space
from tune.search.space_checks import NOT_SEARCHED, check_space
from tune.search.space_parser import SPACES

optuna.logging.set_verbosity(optuna.logging.WARNING)

CONDITIONAL = """
method: {choice: [nf, nf-bmr]}
mapping.residual_blocks: {int: [1, 4], when: {method: nf-bmr}}
flow:
  hidden: {int: [8, 64], log: true}
train.flow.lr: {float: [1e-4, 1e-2], log: true}
light:
  preset:
    as-it-is: {}
    even: {features.photometric: brightness, features: {views: [flip-h]}}
features.taps: {choice: [[blocks.4], [blocks.5], [blocks.4, blocks.5]]}
"""


def refused(text: str, base: Config | None = None, chosen: tuple[str, ...] = ()) -> str:
    with pytest.raises(ConfigError) as caught:
        check_space(Space.parse(text, "my.yaml"), base or Config(), chosen)
    return str(caught.value)


def suggested(space: Space, seed: int) -> dict:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return space.suggest(study.ask())


@pytest.mark.parametrize("name", [path.stem for path in SPACES.glob("*.yaml")])
def test_every_named_space_can_be_searched_from_the_defaults(name):
    space = Space.load(name)
    check_space(space, Config())
    assert with_settings(Config(), suggested(space, 0))


def test_the_default_space_is_blocks_width_depth_tap_and_what_decides_on_unseen_parts():
    assert [d.name for d in Space.load().dimensions] == [
        "flow.blocks",
        "flow.hidden",
        "mapping.residual_blocks",
        "features.taps",
        "features.scales",
        "features.detail.taps",
        "features.detail.size",
        "flow.kernels",
        "train.flow.epochs",
    ]


@settings(max_examples=40)
@given(st.integers(0, 2**31 - 1))
def test_what_is_suggested_is_a_valid_configuration_and_its_own_point(seed):
    space = Space.parse(CONDITIONAL)
    chosen = suggested(space, seed)
    config = with_settings(Config(), chosen)
    assert ("mapping.residual_blocks" in chosen) == (config.method == "nf-bmr")
    assert 8 <= config.flow.hidden <= 64
    point = space.params_of({"features.photometric": "none", "features.views": [], **chosen})
    assert point is not None
    assert space.settings_of(point) == chosen


@settings(max_examples=60)
@given(st.integers(1, 20), st.integers(0, 20), st.integers(1, 7), st.integers(0, 10**6))
def test_steps_are_counted_from_the_lowest_value(low, width, step, seed):
    if 0 < width < step:
        return
    space = Space.parse(f"flow.blocks: {{int: [{low}, {low + width}], step: {step}}}")
    assert not space.problems
    value = suggested(space, seed)["flow.blocks"]
    assert low <= value <= low + width
    assert (value - low) % step == 0
    assert space.size == width // step + 1


def test_all_mistakes_are_listed_at_once_each_with_its_line():
    refusal = refused(
        "flow.block: {int: [2, 8]}\n"
        "flow.hidden: {int: [512, 64]}\n"
        "flow:\n"
        "  clamp: {int: [1, 3], logg: true}\n"
        "  blocks: {float: [2, 8]}\n"
        "mapping.latent: {int: [0, 100]}\n"
        "features.photometric: {choice: [none, britness]}\n"
        "method: {choice: [nf, nf-bmrr]}\n"
    )
    for line, words in {
        1: "did you mean flow.blocks?",
        2: "the range is empty, 512 is above 64",
        4: "did you mean log?",
        5: "a whole number from 1 to 64",
        6: "mapping.latent = 0: should be a whole number of at least 1",
        7: "did you mean brightness?",
        8: "did you mean nf-bmr?",
    }.items():
        assert any(f"my.yaml:{line}:" in row and words in row for row in refusal.splitlines()), words


@pytest.mark.parametrize("key", NOT_SEARCHED)
def test_what_must_be_equal_for_all_trials_is_not_searched(key):
    name = next(known for known in keys() if known == key or known.startswith(f"{key}."))
    refusal = refused(f"{name}: {{choice: [1, 2]}}")
    assert "is not searched" in refusal
    assert NOT_SEARCHED[key].split(";")[0] in refusal


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no keys"),
        ("flow.blocks: 4", "is a value, not a range"),
        ("flow.blocks: [2, 4]", "write {choice: [2, 4]}"),
        ("flow.blocks: {}", "needs one of int, float, choice, preset"),
        ("flow.blocks: {int: [1, 4], choice: [1]}", "has int and choice"),
        ("flow.blocks: {int: [1.5, 4]}", "whole numbers"),
        ("flow.blocks: {int: [1]}", "two numbers"),
        ("flow.blocks: {int: [1, 4], step: 9}", "leaves 1 alone"),
        ("flow.hidden: {int: [0, 4], log: true}", "begins above 0"),
        ("flow.hidden: {int: [1, 4], log: true, step: 2}", "cannot both be"),
        ("flow.blocks: {choice: []}", "a list of values"),
        ("flow.blocks: {choice: [2, 2]}", "twice"),
        ("flow: {int: [1, 2]}", "a section, not a key"),
        ("flow.blocks: {preset: {a: {}}}", "a name of its own"),
        ("deep: {preset: {a: {flow.block: 2}}}", "did you mean flow.blocks?"),
        ("deep: {preset: {a: {flow.blocks: 2}}}\nflow.blocks: {int: [1, 2]}", "is set by deep and by"),
        ("flow.blocks: {int: [1, 2], when: {method: nf}}", "not searched above"),
        ("method: {choice: [nf]}\nflow.blocks: {int: [1, 2], when: {method: n}}", "it never is"),
        ("flow.blocks: {int: [1, 2]", "not YAML"),
        ("features.size: {int: [64, 512]}", "give a step"),
        ("features.taps: {choice: [[blocks.4], [blocks.99]]}", "no module 'blocks.99'"),
        ("features.backbone: {choice: [resnet_18]}", "no such backbone"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused(text, words):
    assert words in refused(text)


def test_a_space_that_is_not_there_is_refused_with_the_nearest_name(tmp_path):
    for name in ("defualt", str(tmp_path / "none.yaml"), str(tmp_path)):
        with pytest.raises(ConfigError, match="named space"):
            check_space(Space.load(name), Config())
    with pytest.raises(ConfigError, match="did you mean default"):
        check_space(Space.load("defualt"), Config())


def test_taps_that_share_the_rest_are_extracted_in_one_pass():
    space = Space.parse(CONDITIONAL)
    passes = space.feature_configs(Config())
    assert {(config.photometric, config.views) for config in passes} == {
        ("none", ()),
        ("brightness", ("flip-h",)),
    }
    assert all(set(config.taps) == {"blocks.4", "blocks.5"} for config in passes)


def test_a_space_without_features_needs_those_of_the_base():
    assert Space.parse("flow.blocks: {int: [2, 4]}").feature_configs(Config()) == [Config().features]


def test_a_point_is_checked_against_the_space():
    space = Space.parse(CONDITIONAL)
    assert space.point({"features.taps": ["blocks.4", "blocks.5"], "light": "even"}) == {
        "features.taps": "[blocks.4, blocks.5]",
        "light": "even",
    }
    with pytest.raises(ConfigError) as caught:
        space.point({"flow.hidden": 4096, "flow.block": 2, "light": "evn"})
    assert all(words in str(caught.value) for words in ("4096", "outside the space", "flow.block", "evn"))


def test_what_lies_outside_the_space_is_no_point_of_it():
    space = Space.parse("flow.blocks: {int: [2, 8], step: 2}")
    assert space.params_of({"flow.blocks": 4, "seed": 3}) == {"flow.blocks": 4}
    assert [space.params_of({"flow.blocks": value}) for value in (3, 10, "4", None, True)] == [None] * 5
    assert space.params_of({}) is None


# -- methods


def test_features_are_planned_for_every_method_that_a_trial_may_have():
    space = Space.parse("method: {choice: [nf-bmr, patchcore, differnet, pfm]}")
    planned = space.feature_configs(configure())
    for method in ("nf-bmr", "patchcore", "differnet", "pfm"):
        wanted = configure(settings={"method": method}).features
        rest = wanted.model_dump(exclude={"taps"})
        assert [
            one
            for one in planned
            if rest == one.model_dump(exclude={"taps"}) and {*wanted.taps} <= {*one.taps}
        ]


def test_what_a_method_sets_counts_for_those_that_the_user_chose():
    space = Space.parse("method: {choice: [nf-bmr, padim]}")
    base = configure(settings={"features.size": 128})
    assert {one.size for one in space.feature_configs(base)} == {128}
    chosen = ("features.scales",)
    assert {one.scales for one in space.feature_configs(base, chosen)} == {(1.0, 0.5, 0.25)}
    assert {one.scales for one in space.feature_configs(base)} == {(1.0, 0.5, 0.25), (1.0,)}


def test_methods_that_cannot_run_are_refused_all_at_once():
    text = """
method: {choice: [patchcore, padim, differnet, spade]}
scoring.reduction: {choice: [image, max]}
features.taps: {choice: [[blocks.2], [blocks.2, blocks.4]]}
"""
    refusal = refused(text, configure())
    assert "my.yaml:4: method=padim, scoring.reduction=image" in refusal
    assert "no score of its own for the image" in refusal
    assert "two taps or more" in refusal  # spade, with one
    assert "differnet" not in refusal.replace("method=differnet, scoring.reduction=image", "")


def test_a_method_that_cannot_run_with_what_the_user_chose_is_refused():
    base = configure(settings={"scoring.reduction": "image", "method": "patchcore"})
    chosen = ("scoring.reduction",)
    check_space(Space.parse("method: {choice: [patchcore, spade]}"), base, chosen)
    check_space(
        Space.parse("method: {choice: [patchcore, padim]}"), base
    )  # by default only: padim has another
    refusal = refused("method: {choice: [patchcore, padim]}", base, chosen)
    assert "my.yaml:1: method=padim" in refusal
    assert "no score of its own for the image" in refusal


def test_methods_one_by_one_are_fine_where_their_conditions_say_so():
    text = """
method: {choice: [nf, patchcore, differnet]}
bank:
  preset: {small: {patchcore.coreset: 0.01, features.taps: [blocks.2]}, as-it-is: {}}
  when: {method: patchcore}
level:
  preset: {deep: {features.taps: [blocks.5]}, middle: {features.taps: [blocks.4]}}
  when: {method: differnet}
features.test_rotations: {choice: [8, 16], when: {method: differnet}}
"""
    space = Space.parse(text, "my.yaml")
    check_space(space, configure())
    assert space.params_of(values_of(configure(settings={"method": "patchcore"}))) == {
        "method": "patchcore",
        "bank": "as-it-is",
    }
    together = text.replace("when: {method: differnet}", "when: {method: [differnet, patchcore]}", 1)
    assert "features.taps: is set by bank and by level" in refused(together, configure())


def test_a_method_that_does_not_exist_is_refused_with_the_nearest_name():
    assert "did you mean patchcore?" in refused("method: {choice: [nf, patchcor]}", configure())


def test_the_space_of_methods_has_all_of_them_with_two_or_three_dimensions_each():
    space = Space.load("methods")
    (method, *rest) = space.dimensions
    assert sorted(method.options) == sorted(METHODS)
    for name in METHODS:
        assert 2 <= sum(name in dimension.when["method"] for dimension in rest) <= 3


@pytest.mark.parametrize("method", METHODS)
def test_the_space_of_methods_contains_the_defaults_of_each(method):
    space, config = Space.load("methods"), configure(settings={"method": method})
    params = space.params_of(values_of(config))
    assert params is not None
    assert with_settings(config, space.settings_of(params)) == config
    assert with_settings(configure(), space.settings_of(params)) == config
