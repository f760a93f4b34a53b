"""Scores, thresholds and their selection."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nfbmr.config import ScoringConfig
from nfbmr.errors import ConfigError
from nfbmr.scoring.fusion import Scorer, reduced
from nfbmr.scoring.maps import smoothed, squared_norm
from nfbmr.scoring.normalisation import FOLDS, UnitMaps, cross_normalised, normal_statistics
from nfbmr.scoring.ranking import auroc_error
from nfbmr.scoring.selection import select_scorer
from nfbmr.scoring.thresholds import colours_of

COMPONENTS = ("source", "target", "norm")
PUBLISHED = (0.5, 0.5, 0.0)


def test_pooling_keeps_what_neighbours_share():
    shared = torch.randn(6).view(1, 6, 1, 1).expand(2, 6, 5, 7)
    torch.testing.assert_close(squared_norm(shared, 1.0), squared_norm(shared))


@given(st.integers(0, 2**31), st.floats(0.5, 3.0))
def test_pooling_averages_scatter_out_and_smoothing_the_map_does_not(seed, sigma):
    z = torch.randn(4, 32, 12, 12, generator=torch.Generator().manual_seed(seed))
    norm = squared_norm(z)
    assert squared_norm(z, sigma).mean() < 0.6 * norm.mean()
    assert smoothed(norm, sigma).mean() == pytest.approx(float(norm.mean()), rel=0.1)


def test_pooling_never_mixes_images_or_channels():
    error = torch.randn(3, 6, 4, 5)
    together = squared_norm(error, 1.0)
    torch.testing.assert_close(together, torch.cat([squared_norm(one, 1.0) for one in error.split(1)]))
    torch.testing.assert_close(together, squared_norm(error[:, torch.randperm(6)], 1.0))


def test_an_absent_component_does_not_touch_the_score():
    maps = torch.rand(2, 3, 4, 4)
    maps[:, 0] = torch.nan
    assert torch.isfinite(Scorer(COMPONENTS, (0.0, 0.0, 1.0)).fuse(maps)).all()


@pytest.mark.parametrize("sigma", [0.0, 0.7, 4.0])
@pytest.mark.parametrize("shape", [(2, 12, 12), (1, 2, 3), (1, 1, 1)])
def test_smoothing_keeps_shape_and_constants(sigma, shape):
    torch.testing.assert_close(smoothed(torch.full(shape, 3.0), sigma), torch.full(shape, 3.0))


def test_reductions_are_ordered():
    maps = torch.rand(5, 8, 8)
    low, middle, high = (reduced(maps, r, 0.1) for r in ("mean", "topk", "max"))
    assert (low <= middle).all()
    assert (middle <= high).all()


def test_scorer_survives_json():
    center, scale = torch.rand(2, 3, 4, 4)
    scorer = Scorer(COMPONENTS, (0.2, 0.3, 0.5), center, scale, "topk", 0.1, 1.5, 7.25)
    again = Scorer.from_json(json.loads(json.dumps(scorer.as_json())))
    maps = torch.rand(2, 3, 4, 4)
    assert again.score(maps).tolist() == scorer.score(maps).tolist()
    assert again.threshold == scorer.threshold


def _each(maps: torch.Tensor) -> UnitMaps:
    """Images of a part each; a good image and a defective one with the same number show the same part."""
    return UnitMaps(maps, tuple(f"part {i:03d}" for i in range(len(maps))))


def _maps(*, telling: str) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    good, defective = torch.rand(2, 40, 3, 6, 6, generator=generator)
    defective[:, COMPONENTS.index(telling), 2, 3] += 2
    return good, defective


@pytest.mark.parametrize("component", COMPONENTS)
def test_selection_finds_the_component_and_reduction_that_tell(component):
    good, defective = _maps(telling=component)
    selection = select_scorer(
        _each(good),
        _each(defective),
        ScoringConfig(smooth=0.0),
        components=COMPONENTS,
        published=PUBLISHED,
        false_reject_rate=0.1,
    )
    assert selection.auroc == 1.0
    assert selection.scorer.weights[COMPONENTS.index(component)] > 0
    assert selection.scorer.reduction != "mean"
    assert len(selection.candidates) == 7 * 5  # subsets of the components, by max, mean and three shares


def test_within_one_standard_error_the_candidate_with_most_evidence_wins():
    """A defect that all components and many positions show: no reason to look at one of them."""
    generator = torch.Generator().manual_seed(2)
    good, defective = torch.rand(2, 40, 3, 6, 6, generator=generator)
    defective[:, :, :4, :4] += 1.5
    chosen = select_scorer(
        _each(good),
        _each(defective),
        ScoringConfig(),
        components=COMPONENTS,
        published=PUBLISHED,
        false_reject_rate=0.1,
    )
    assert all(chosen.scorer.weights)
    assert chosen.scorer.reduction == "mean"
    assert chosen.auroc >= chosen.candidates[0]["auroc"] - auroc_error(chosen.candidates[0]["auroc"], 40, 40)


def test_selection_keeps_to_what_is_fixed_and_to_the_components_that_exist():
    good, defective = _maps(telling="norm")
    fixed = ScoringConfig(reduction="mean", weights=(1.0, 0.0, 0.0))
    chosen = select_scorer(
        _each(good),
        _each(defective),
        fixed,
        components=COMPONENTS,
        published=PUBLISHED,
        false_reject_rate=0.1,
    )
    assert chosen.scorer.weights == (1.0, 0.0, 0.0)
    assert chosen.scorer.reduction == "mean"


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 0.0, 0.0, 0.0)])
def test_weights_are_those_of_the_components_there_are(weights):
    good, defective = (_each(maps) for maps in _maps(telling="norm"))
    config = ScoringConfig(weights=weights)
    with pytest.raises(ConfigError, match=r"source, target, norm"):
        select_scorer(
            good, defective, config, components=COMPONENTS, published=PUBLISHED, false_reject_rate=0.1
        )


def test_a_score_of_the_whole_image_is_taken_as_it_is_and_never_mixed_into_the_map():
    generator = torch.Generator().manual_seed(3)
    good, defective = torch.rand(2, 40, 2, 6, 6, generator=generator)
    for maps, shift in ((good, 0.0), (defective, 2.0)):
        maps[:, 1] = (torch.rand(40, generator=generator) + shift)[:, None, None]
    chosen = select_scorer(
        _each(good),
        _each(defective),
        ScoringConfig(reduction="image"),
        components=("patch", "image"),
        published=(1.0, 0.0),
        false_reject_rate=0.1,
    )
    scorer = chosen.scorer
    assert chosen.auroc == 1.0
    assert scorer.weights == (1.0, 0.0)
    assert (scorer.score(defective) > scorer.threshold).all()
    torch.testing.assert_close(scorer.fuse(good), replace(scorer, reduction="max").fuse(good))
    for refused in (ScoringConfig(weights=(0.5, 0.5)), ScoringConfig(weights=(0.0, 1.0))):
        with pytest.raises(ConfigError, match="whole image"):
            select_scorer(
                _each(good), _each(defective), refused, components=("patch", "image"),
                published=(1.0, 0.0), false_reject_rate=0.1,
            )  # fmt: skip


def test_only_a_method_with_a_score_of_its_own_has_it():
    good, defective = (_each(maps) for maps in _maps(telling="norm"))
    config = ScoringConfig(reduction="image")
    with pytest.raises(ConfigError, match="no score of its own"):
        select_scorer(
            good, defective, config, components=COMPONENTS, published=PUBLISHED, false_reject_rate=0.1
        )


@pytest.mark.parametrize("normalise", ["part", "position"])
def test_normalising_makes_components_comparable(normalise):
    good, _ = _maps(telling="norm")
    good = good * torch.tensor([1.0, 100.0, 1e4]).view(3, 1, 1)
    center, scale = normal_statistics(good, normalise)
    maps = [
        Scorer(COMPONENTS, tuple(float(p == component) for p in range(3)), center, scale).fuse(good)
        for component in range(3)
    ]
    for one in maps:
        assert float(one.std()) == pytest.approx(float(maps[0].std()), rel=0.1)


def test_normalising_by_position_finds_what_is_odd_for_its_place():
    """The edge of a part varies wildly; a smaller change in its quiet middle is the defect."""
    spread = torch.ones(6, 6)
    spread[1:-1, 1:-1] = 0.05
    generator = torch.Generator().manual_seed(0)
    good = torch.randn(60, 3, 6, 6, generator=generator) * spread + 5
    defective = torch.randn(60, 3, 6, 6, generator=generator) * spread + 5
    defective[:, :, 3, 3] += 0.5

    def found(normalise):
        config = ScoringConfig(normalise=normalise, weights=(0.0, 0.0, 1.0), reduction="max", smooth=0.0)
        return select_scorer(
            _each(good),
            _each(defective),
            config,
            components=COMPONENTS,
            published=PUBLISHED,
            false_reject_rate=0.1,
        ).auroc

    assert found("position") > 0.99 > 0.7 > found("part")


def test_components_that_do_not_vary_are_left_finite():
    center, scale = normal_statistics(torch.zeros(5, 3, 2, 2), "position")
    assert torch.isfinite(
        Scorer(COMPONENTS, (1.0, 1.0, 1.0), center, scale).fuse(torch.ones(1, 3, 2, 2))
    ).all()


def test_threshold_holds_for_new_parts_when_few_images_set_it():
    """Judged by statistics of its own images a part looks too normal, and more so with five of them."""
    generator = torch.Generator().manual_seed(0)
    rejected = []
    for _ in range(30):
        parts = torch.randn(24, 1, 3, 8, 8, generator=generator)
        maps = (parts + 0.1 * torch.randn(24, 5, 3, 8, 8, generator=generator)).flatten(0, 1) + 5
        good = UnitMaps(maps, tuple(f"part {i // 5}" for i in range(120)))
        config = ScoringConfig(reduction="topk", topk=(0.2,), weights=(1.0, 1.0, 1.0), smooth=0.0)
        chosen = select_scorer(
            good, good, config, components=COMPONENTS, published=PUBLISHED, false_reject_rate=0.1
        ).scorer
        new = torch.randn(200, 3, 8, 8, generator=generator) + 5
        rejected.append((chosen.score(new) > chosen.threshold).double().mean())
    assert torch.stack(rejected).mean() <= 0.13


def test_a_unit_is_judged_by_other_units_only():
    maps = torch.rand(3 * FOLDS, 3, 2, 2)
    good = UnitMaps(maps, tuple(f"part {i:02d}" for i in range(3 * FOLDS)))
    before = cross_normalised(good, good, "position")
    maps[0] += 100
    after = cross_normalised(good, good, "position")
    same_fold = [0, FOLDS, 2 * FOLDS]
    torch.testing.assert_close(after[same_fold[1:]], before[same_fold[1:]])
    assert not torch.allclose(after[1], before[1])


def test_colours_are_the_good_images_own_and_always_have_a_width() -> None:
    low, high = colours_of(torch.rand(4, 9, 9, generator=torch.Generator().manual_seed(0)))
    assert 0.8 < low < 1 < high < 1.5
    for same in (torch.ones(2, 3, 3), torch.zeros(2, 3, 3), -1e6 * torch.ones(1, 2, 2), torch.zeros(0, 2, 2)):
        low, high = colours_of(same)
        assert high > low


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 5, 9), (1, 2, 2)])
@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.3])
def test_smoothing_is_torchvisions_to_the_last_bit(shape, sigma):
    from torchvision.transforms.functional import gaussian_blur

    map_NHW = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    longest = 2 * min(shape[1:]) - 1
    width = min(2 * math.ceil(3 * sigma) + 1, longest if longest % 2 else longest - 1)
    expected_N1HW = gaussian_blur(map_NHW.unsqueeze(1), [width, width], [sigma, sigma])
    assert torch.equal(smoothed(map_NHW, sigma), expected_N1HW.squeeze(1))
