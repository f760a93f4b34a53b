"""The AUROC, and the error of a difference of two of them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from nfbmr.scoring.ranking import auroc, auroc_influence, difference_error, effective

FEW = st.lists(st.integers(0, 6).map(float), min_size=1, max_size=30)


@given(FEW, FEW)
def test_auroc_agrees_with_scikit_learn_ties_included(good, defective):
    labels = [0] * len(good) + [1] * len(defective)
    assert auroc(torch.tensor(good), torch.tensor(defective)) == pytest.approx(
        roc_auc_score(labels, good + defective)
    )


@given(FEW, FEW)
def test_influences_of_all_units_cancel(good, defective):
    units = [f"part {i % 5}" for i in range(30)]
    influence = auroc_influence(
        torch.tensor(good), torch.tensor(defective), units[: len(good)], units[: len(defective)]
    )
    assert float(influence.sum()) == pytest.approx(0.0, abs=1e-12)


@given(FEW, FEW, st.data())
def test_weights_count_images_several_times(good, defective, data):
    """An image of weight three is three images of the same unit."""
    weights = data.draw(st.lists(st.integers(1, 4), min_size=len(defective), max_size=len(defective)))
    units = [f"part {i % 5}" for i in range(30)]
    repeated = [(s, u) for s, u, w in zip(defective, units, weights, strict=False) for _ in range(w)]
    scores, names = zip(*repeated, strict=True)
    good_N, defective_M = torch.tensor(good), torch.tensor(defective)
    assert auroc(good_N, defective_M, weights) == pytest.approx(auroc(good_N, torch.tensor(scores)))
    sides = units[: len(good)], units[: len(defective)]
    weighted = auroc_influence(good_N, defective_M, *sides, weights)
    expected = auroc_influence(good_N, torch.tensor(scores), sides[0], names)
    assert torch.allclose(weighted, expected, atol=1e-12)


def test_unequal_weights_say_less():
    assert effective(5, None) == effective(5, [2.0] * 5) == 5
    assert 1 < effective(5, [10.0, 1, 1, 1, 1]) < 5


def parts(generator: torch.Generator, *, photographs: int, count: int = 40) -> torch.Tensor:
    """How odd each part looks, the same in all its photographs; (count * photographs,)."""
    return torch.randn(count, generator=generator).repeat_interleave(photographs)


@pytest.mark.parametrize("photographs", [1, 4])
def test_the_error_of_a_difference_is_what_it_varies_by(photographs):
    """Two detectors that agree on most of what makes a part look odd, on many draws of the parts."""
    generator = torch.Generator().manual_seed(0)
    names = [f"part {i // photographs:02d}" for i in range(40 * photographs)]
    differences, errors = [], []
    for _ in range(300):
        look = parts(generator, photographs=photographs)
        scores = []
        for _detector in range(2):
            own = look + 0.5 * parts(generator, photographs=photographs)
            scores.append((own, own + 1.0 + 0.3 * torch.randn(len(look), generator=generator)))
        one, other = scores
        differences.append(auroc(*one) - auroc(*other))
        errors.append(difference_error(*(auroc_influence(*pair, names, names) for pair in scores)))
    spread = float(torch.tensor(differences).std())
    assert float(torch.tensor(errors).mean()) == pytest.approx(spread, rel=0.15)


def test_what_ranks_alike_differs_by_nothing():
    good, defective = torch.rand(20), torch.rand(20) + 0.3
    names = [str(i) for i in range(20)]
    one, other = (auroc_influence(f(good), f(defective), names, names) for f in (torch.exp, torch.log1p))
    assert difference_error(one, other) == pytest.approx(0.0, abs=1e-12)
