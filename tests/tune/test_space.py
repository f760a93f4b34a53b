"""Search spaces: what they say, what they refuse, and that whatever they suggest can be run."""

from __future__ import annotations

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nfbmr.config import Config
from nfbmr.errors import ConfigError
from nfbmr.fields import keys
from tune.space import SPACES, Space, with_settings
from tune.space_checks import NOT_SEARCHED

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


def refused(text: str, base: Config | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        Space.parse(text, "my.yaml").check(base or Config())
    return str(caught.value)


def suggested(space: Space, seed: int) -> dict:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return space.suggest(study.ask())


@pytest.mark.parametrize("name", [path.stem for path in SPACES.glob("*.yaml")])
def test_every_named_space_can_be_searched_from_the_defaults(name):
    space = Space.load(name)
    space.check(Config())
    assert with_settings(Config(), suggested(space, 0))


def test_the_default_space_is_blocks_width_depth_and_tap():
    assert [d.name for d in Space.load().dimensions] == [
        "flow.blocks",
        "flow.hidden",
        "mapping.residual_blocks",
        "features.taps",
    ]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
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


@settings(max_examples=60, deadline=None)
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
    told = refused(
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
        assert any(f"my.yaml:{line}:" in row and words in row for row in told.splitlines()), words


@pytest.mark.parametrize("key", NOT_SEARCHED)
def test_what_must_be_equal_for_all_trials_is_not_searched(key):
    name = next(known for known in keys() if known == key or known.startswith(f"{key}."))
    told = refused(f"{name}: {{choice: [1, 2]}}")
    assert "is not searched" in told
    assert NOT_SEARCHED[key].split(";")[0] in told


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
            Space.load(name).check(Config())
    with pytest.raises(ConfigError, match="did you mean default"):
        Space.load("defualt").check(Config())


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
