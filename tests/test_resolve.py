"""Layers of settings become one configuration, and everything wrong with them is said at once."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nfbmr import yaml_text
from nfbmr.config import Config
from nfbmr.errors import ConfigError
from nfbmr.fields import fields_of, keys
from nfbmr.methods.registry import METHODS, named_configurations
from nfbmr.resolve import (
    Layer,
    Resolved,
    config_layers,
    digest,
    dump_yaml,
    file_layer,
    flat,
    load_config,
    resolve,
    set_layer,
    unflatten,
)


def set_(*assignments: str) -> Resolved:
    return resolve([set_layer(assignments)])


def problem(*assignments: str) -> str:
    with pytest.raises(ConfigError) as caught:
        set_(*assignments)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------ merging


def test_nothing_given_is_the_default() -> None:
    resolved = resolve()
    assert resolved.config == Config()
    assert set(resolved.origins.values()) == {"default"}
    assert not resolved.given("seed")


def test_a_later_layer_wins_key_by_key(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("flow:\n  blocks: 6\n  clamp: 2.0\nseed: 3\n")
    layers = config_layers(
        ["paper", str(file)],
        ["flow.blocks=8"],
        {"seed": ("--seed", "9")},
        named={"paper": named_configurations()["paper"]},
    )
    resolved = resolve(layers)
    flow = resolved.config.flow
    assert (flow.blocks, flow.clamp, flow.hidden, resolved.config.seed) == (8, 2.0, 1024, 9)
    assert resolved.origins["flow.blocks"] == "--set"
    assert resolved.origins["flow.clamp"] == f"{file}:3"
    assert resolved.origins["flow.hidden"] == "paper"
    assert resolved.origins["seed"] == "--seed"
    assert resolved.origins["flow.padding"] == "default"


def test_the_order_of_configurations_is_the_order_given(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("flow: {hidden: 7}")
    named = {"paper": named_configurations()["paper"]}
    assert resolve(config_layers([str(file), "paper"], named=named)).config.flow.hidden == 1024
    assert resolve(config_layers(["paper", str(file)], named=named)).config.flow.hidden == 7


def test_a_methods_defaults_lie_just_above_the_defaults() -> None:
    methods = {"nf-bmr": {}, "other": {"flow": {"blocks": 2, "hidden": 9}}}
    resolved = resolve([set_layer(["method=other", "flow.hidden=5"])], methods=methods)
    assert (resolved.config.flow.blocks, resolved.config.flow.hidden) == (2, 5)
    assert resolved.origins["flow.blocks"] == "method other"


@pytest.mark.parametrize("name", named_configurations())
def test_every_named_configuration_is_valid(name: str) -> None:
    methods = {method: row.defaults for method, row in METHODS.items()}
    resolved = resolve(config_layers([name], named=named_configurations()), methods=methods)
    assert name in set(resolved.origins.values())


@pytest.mark.parametrize("key", keys())
def test_setting_a_key_leaves_all_others_at_their_defaults(key):
    defaults = flat(Config())
    resolved = resolve([Layer("test", {key: keys()[key].default})])
    assert flat(resolved.config) == defaults


@pytest.mark.parametrize("name", METHODS)
def test_every_methods_defaults_are_valid(name: str) -> None:
    resolve([Layer("test", {"method": name})], methods={name: METHODS[name].defaults})


def test_dotted_and_nested_keys_mean_the_same() -> None:
    dotted = resolve([Layer("x", {"train.flow.lr": 0.5, "train.flow": {"epochs": 3}})]).config
    assert dotted == resolve([Layer("x", {"train": {"flow": {"lr": 0.5, "epochs": 3}}})]).config


def test_the_folder_of_a_run_is_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: 5")
    assert resolve(config_layers([str(tmp_path)], named={})).config.seed == 5


def test_a_run_again_takes_none_of_its_methods_later_defaults(tmp_path: Path) -> None:
    methods = {"nf-bmr": {"features": {"size": 64, "detail": {"symmetry": "auto"}}}}
    old = tmp_path / "old"
    old.mkdir()
    (old / "config.yaml").write_text("method: nf-bmr\nfeatures: {size: 96}")  # of before there was the key
    features = resolve(config_layers([str(old)], named={}), methods=methods).config.features
    assert (features.size, features.detail.symmetry) == (96, "none")
    file = old / "config.yaml"  # given as a file it is some settings, and the method's defaults are below
    assert (
        resolve(config_layers([str(file)], named={}), methods=methods).config.features.detail.symmetry
        == "auto"
    )


def test_what_several_keys_of_a_section_contradict_is_said() -> None:
    with pytest.raises(ConfigError, match=r"features: a turned image has other proportions.*aspect is 1"):
        resolve([set_layer(["features.symmetry=square", "features.aspect=1.5"])])


# --------------------------------------------------------------------------------------------- --set


@pytest.mark.parametrize(
    ("assignment", "key", "value"),
    [
        ("train.flow.lr=1e-4", "train.flow.lr", 1e-4),
        ("train.flow.clip=null", "train.flow.clip", None),
        ("features.compile=true", "features.compile", True),
        ("flow.kernels=[3, 5]", "flow.kernels", [3, 5]),
        ("flow.kernels=3,5", "flow.kernels", [3, 5]),
        ("features.taps=35", "features.taps", [35]),
        ("features.taps=blocks.3,blocks.5", "features.taps", ["blocks.3", "blocks.5"]),
        ("scoring.weights=paper", "scoring.weights", "paper"),
        ("scoring.weights=1,0,0.5", "scoring.weights", [1.0, 0.0, 0.5]),
        ("data.category=3", "data.category", "3"),
        ("tracking.run_name=1e-4", "tracking.run_name", "1e-4"),
        ("tracking.run_name=on", "tracking.run_name", "on"),
        ("data.group_by=(a=b)", "data.group_by", "(a=b)"),
        (" seed = 4", "seed", 4),
    ],
)
def test_set_reads_what_was_meant(assignment: str, key: str, value: Any) -> None:
    shown = yaml_text.parse(dump_yaml(set_(assignment).config)).value
    for part in key.split("."):
        shown = shown[part]
    assert shown == value


# ------------------------------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("assignment", "hints"),
    [
        ("flow.block=8", ["flow.block", "did you mean flow.blocks?"]),
        ("blocks=8", ["flow.blocks", "detail.blocks"]),
        ("epochs=8", ["train.flow.epochs", "train.mapping.epochs"]),
        ("trian.flow.lr=1", ["did you mean train.flow.lr?"]),
        ("selection.fuzzle=1", ["no such key"]),
        ("flow=8", ["a section", "flow.blocks"]),
        ("flow.blocks=0", ["flow.blocks = 0 (--set)", "a whole number from 1 to 64"]),
        ("flow.blocks=many", ["many", "a whole number"]),
        ("flow.blocks=true", ["flow.blocks = true", "a whole number"]),
        ("flow.blocks=1.5", ["1.5", "a whole number"]),
        ("data.split=grup", ["official", "did you mean group?"]),
        ("train.flow.lr=.inf", ["train.flow.lr", "a number above 0"]),
        ("flow.kernels=4", ["odd kernel sizes"]),
        ("features.taps=blocks.3,blocks.3", ["features.taps", "names a tap twice"]),
        ("features.taps=35,'35'", ["names a tap twice"]),
        ("features.views=rot90,rot90", ["names a view twice"]),
        ("data.group_by=(", ["not a regular expression"]),
        ("scoring.weights=0,0,0", ["all zero"]),
        ("scoring.weights=1,two", ["a list"]),
        ("seed=[1", ["--set seed=[1", "not YAML"]),
        ("seed", ["KEY=VALUE"]),
        ("=1", ["KEY=VALUE"]),
    ],
)
def test_the_error_says_what_where_and_what_instead(assignment: str, hints: list[str]) -> None:
    message = problem(assignment)
    assert all(hint in message for hint in hints), message


def test_all_problems_are_listed_at_once(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("seed: -1\nflow:\n  block: 3\nfloww: {blocks: 1}\n")
    layers = config_layers([str(file), "papr"], ["data.split=x", "nonsense"], named=named_configurations())
    with pytest.raises(ConfigError) as caught:
        resolve([*layers, Layer("z", {"method": "nf-bm"})], methods={"nf-bmr": {}})
    message = str(caught.value)
    for hint in (
        "7 problems",
        f"seed = -1 ({file}:1)",
        f"flow.block ({file}:3)",
        "did you mean flow?",
        "did you mean paper?",
        "data.split = x",
        "nonsense",
        "did you mean nf-bmr?",
    ):
        assert hint in message, message


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (b"a: [1", "not a YAML file (line 1"),
        (b"- 1\n- 2\n", "holds no keys"),
        (b"just words", "holds no keys"),
        (b"seed: 1\nseed: 2\n", "seed is given twice"),
        (b"\xff\xfe\x00binary", "not a"),
        (b"seed: !!python/object/apply:os.system ['true']", "not a YAML file"),
        (b"a: 1\n---\nb: 2\n", "not a YAML file"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, content: bytes, hint: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"bad\.yaml") as caught:
        resolve([file_layer(file)])
    assert hint in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "config.yaml")


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\nflow:\n")
    assert load_config(tmp_path / "empty.yaml") == Config()


# ------------------------------------------------------------------------------------- in and out again

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(scalars, lambda part: st.lists(part, max_size=3), max_leaves=6)


@given(values)
def test_what_is_written_on_one_line_reads_back_equal(value: Any) -> None:
    text = yaml_text.inline(value)
    assert "\n" not in text
    back = yaml_text.parse(f"x: {text}\n").value["x"]
    assert (back, repr(back)) == (value, repr(value))


@given(st.text())
def test_other_readers_see_text_as_text(value: str) -> None:
    assert yaml.safe_load(f"x: {yaml_text.inline(value)}\n")["x"] == value


@given(
    st.builds(
        dict,
        **{
            "flow.blocks": st.integers(1, 64),
            "train.flow.lr": st.floats(1e-8, 10),
            "train.flow.clip": st.none() | st.floats(0.1, 10),
            "tracking.run_name": st.none() | st.text(),
            "features.taps": st.lists(
                st.integers(0, 99) | st.text(min_size=1), min_size=1, max_size=3, unique_by=str
            ),
            "data.path": st.none() | st.sampled_from(["a b/c", "ü", "-", "null", "1"]),
        },
    )
)
def test_a_configuration_survives_its_file_and_its_flat_form(chosen: dict[str, Any]) -> None:
    config = resolve([Layer("test", chosen)]).config
    document = yaml_text.parse(dump_yaml(config, dict.fromkeys(keys(), "somewhere\nelse"))).value
    assert resolve([Layer("file", document)]).config == config
    again = [f"{key}={yaml_text.inline(value)}" for key, value in flat(config).items() if value is not None]
    listed = {
        key for key, value in flat(config).items() if isinstance(value, str) and value[:1] in ("[", "{")
    }
    assert set_(*[a for a in again if a.partition("=")[0] not in listed]).config.flow == config.flow
    assert set_(f"features.taps={flat(config)['features.taps']}").config.features.taps == config.features.taps


def test_a_run_reads_back_its_own_configuration(tmp_path: Path) -> None:
    config = resolve(config_layers(["paper"], ["data.path=x y/ü"], named=named_configurations())).config
    (tmp_path / "config.yaml").write_text(dump_yaml(config), encoding="utf-8")
    assert load_config(tmp_path / "config.yaml") == config


def test_flat_values_are_scalars() -> None:
    assert all(isinstance(v, str | int | float | None) for v in flat(Config()).values())
    assert unflatten(flat(Config())).keys() == Config().model_dump().keys()


def test_origins_stand_beside_the_values() -> None:
    resolved = set_("flow.blocks=8")
    lines = dump_yaml(resolved.config, resolved.origins).splitlines()
    assert next(line for line in lines if "blocks: 8" in line).endswith("# --set")
    assert next(line for line in lines if line.startswith("seed:")).endswith("# default")


def test_the_digest_depends_on_values_alone() -> None:
    one, same, other = (
        set_(text).config.flow for text in ("flow.blocks=8", "flow.blocks= 8", "flow.blocks=9")
    )
    assert digest(one, 1, "a") == digest(same, 1, "a")
    assert len({digest(one), digest(other), digest(one, None), digest(one, 0), digest([one.blocks])}) == 5
    with pytest.raises(ValueError, match="JSON compliant"):
        digest(math.nan)


def test_every_key_is_described_by_what_it_allows() -> None:
    described = fields_of()
    assert {key.name for key in described} >= set(flat(Config()))  # and those of methods that tests loaded
    assert all(key.allowed and key.allowed != "a value" for key in described)
    by_name = keys()
    assert by_name["train.mapping.epochs"].default == 10
    assert by_name["train.flow.clip"].allowed == "a number above 0 or null"
    assert by_name["data.limit_train"].allowed == "a whole number of at least 1 or null"
