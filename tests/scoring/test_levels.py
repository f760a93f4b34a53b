"""Levels: each makes a score of its own, and counts by how well it separates on validation data."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from nfbmr.config import ScoringConfig
from nfbmr.scoring.fusion import Scorer
from nfbmr.scoring.levels import Level, shares
from nfbmr.scoring.normalisation import UnitMaps
from nfbmr.scoring.selection import Selection, select_scorer

LEVELS = ((Level("context", (1.0, 0.0), "mean"),), (Level("detail", (0.0, 1.0), "max"),))


def maps(images: int, seed: int) -> torch.Tensor:
    """Two components of good images: noise."""
    return torch.randn(images, 2, 8, 8, generator=torch.Generator().manual_seed(seed))


def units(images: int, name: str) -> tuple[str, ...]:
    return tuple(f"{name}{i}" for i in range(images))


def chosen(good: torch.Tensor, defective: torch.Tensor, **settings: object) -> Selection:
    return select_scorer(
        UnitMaps(good, units(len(good), "g")),
        UnitMaps(defective, units(len(defective), "d")),
        ScoringConfig.model_validate({"smooth": 0.0, **settings}),
        components=("context", "detail"),
        published=(1.0, 0.0),
        false_reject_rate=0.05,
        levels=LEVELS,
        map_weights=(0.0, 1.0),
    )


@pytest.mark.parametrize("better", [0, 1])
def test_the_level_that_sees_the_defects_makes_the_score(better: int) -> None:
    defective = maps(60, seed=1)
    defective[:, better, 2, 3] += 8.0 if better else 0.0
    if not better:
        defective[:, 0] += 1.0
    selection = chosen(maps(60, seed=0), defective)
    share = {level.name: level.share for level in selection.scorer.levels}
    assert share["detail" if better else "context"] > 0.9
    assert selection.auroc > 0.95
    assert sum(share.values()) == pytest.approx(1.0)


def test_the_map_has_weights_of_its_own() -> None:
    good, defective = maps(40, seed=0), maps(40, seed=1)
    defective[:, 1, 4, 4] += 6
    scorer = chosen(good, defective).scorer
    loud = defective.clone()
    loud[:, 0] += 100
    assert torch.equal(scorer.fuse(defective), scorer.fuse(loud))
    assert (scorer.score(loud) > scorer.score(defective)).all()


def test_good_images_score_about_nothing_and_the_threshold_holds_on_new_ones() -> None:
    good, defective = maps(200, seed=0), maps(200, seed=1)
    defective[:, 1, 0, 0] += 5
    scorer = chosen(good, defective).scorer
    new = scorer.score(maps(2000, seed=2))
    assert abs(float(new.mean())) < 0.3
    assert 0.01 < float((new > scorer.threshold).double().mean()) < 0.12


@pytest.mark.parametrize("better", [0, 1])
def test_of_several_ways_to_make_a_levels_score_validation_takes_the_best(better: int) -> None:
    ways = (Level("context", (1.0, 0.0), "mean"), Level("context", (0.0, 1.0), "mean"))
    good, defective = maps(60, seed=0), maps(60, seed=1)
    defective[:, better] += 1.0
    selection = select_scorer(
        UnitMaps(good, units(60, "g")),
        UnitMaps(defective, units(60, "d")),
        ScoringConfig(smooth=0.0),
        components=("context", "detail"),
        published=(1.0, 0.0),
        false_reject_rate=0.05,
        levels=(ways, LEVELS[1]),
        map_weights=(0.0, 1.0),
    )
    assert selection.scorer.levels[0].weights == ways[better].weights


def test_a_setting_of_ones_own_goes_before_levels() -> None:
    selection = chosen(maps(30, seed=0), maps(30, seed=1) + 1, weights=(1.0, 0.0), reduction="mean")
    assert selection.scorer.levels == ()
    assert selection.scorer.weights == (1.0, 0.0)


def test_a_scorer_with_levels_survives_json() -> None:
    scorer = chosen(maps(30, seed=0), maps(30, seed=1) + 1).scorer
    again = Scorer.from_json(scorer.as_json())
    assert again.levels == scorer.levels
    assert torch.equal(again.score(maps(5, seed=3)), scorer.score(maps(5, seed=3)))


def test_models_without_levels_still_load() -> None:
    value = replace(chosen(maps(30, seed=0), maps(30, seed=1) + 1).scorer, levels=()).as_json()
    del value["levels"]
    assert Scorer.from_json(value).levels == ()


def test_few_images_make_levels_count_more_alike() -> None:
    few, many = shares([0.99, 0.7], images=3), shares([0.99, 0.7], images=300)
    assert many[0] > few[0] > 0.5
    assert shares([0.3, 0.9], 1000)[0] < 0.01
