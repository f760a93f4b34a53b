"""The greedy coreset against the plain algorithm, step by step."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nfbmr.errors import Interrupted
from nfbmr.methods import coreset
from nfbmr.methods.coreset import greedy_coreset


def plain(x_ND: Tensor, count: int, first: int) -> tuple[list[int], float]:
    """Greedy choice as it is defined: every distance to every chosen one."""
    chosen = [first]
    distance_N = (x_ND - x_ND[first]).norm(dim=1)
    while len(chosen) < count:
        chosen.append(int(distance_N.argmax()))
        distance_N = torch.minimum(distance_N, (x_ND - x_ND[chosen[-1]]).norm(dim=1))
    return chosen, float(distance_N.max())


@settings(max_examples=30)
@given(
    seed=st.integers(0, 1000),
    rows=st.integers(1, 200),
    candidates=st.sampled_from([1, 7, 64, 32768]),
    group=st.sampled_from([1, 5, 512]),
)
def test_the_choice_is_that_of_the_plain_algorithm_however_few_candidates_are_held(
    seed: int, rows: int, candidates: int, group: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x_ND = torch.randn(rows, 6, generator=generator)
    count = max(1, rows // 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coreset, "CANDIDATES", candidates)
        patch.setattr(coreset, "GROUP", group)
        chosen, radius = greedy_coreset(x_ND, count, first=rows // 2)
    expected, covered = plain(x_ND, count, rows // 2)
    assert chosen.tolist() == expected
    # An upper bound of the radius.
    assert radius >= covered - 1e-3


def test_with_many_rows_every_choice_is_the_farthest_row_up_to_rounding() -> None:
    generator = torch.Generator().manual_seed(0)
    centres_KD = 5 * torch.randn(40, 16, generator=generator)
    x_ND = centres_KD[torch.randint(40, (40_000,), generator=generator)]
    x_ND = x_ND + torch.randn(x_ND.shape, generator=generator)
    chosen, radius = greedy_coreset(x_ND, 600, first=11)
    x_ND = x_ND.double()
    distance_N = torch.full((len(x_ND),), torch.inf, dtype=torch.float64)
    for row in chosen.tolist():
        assert float(distance_N[row]) >= float(distance_N.max()) * (1 - 1e-5)
        distance_N = torch.minimum(distance_N, (x_ND - x_ND[row]).norm(dim=1))
    assert radius >= float(distance_N.max()) - 1e-3


def test_rows_that_are_all_the_same_end_too() -> None:
    chosen, radius = greedy_coreset(torch.ones(50, 3), 5)
    assert len(chosen) == 5
    assert radius == pytest.approx(0.0, abs=1e-3)


def test_it_can_be_stopped() -> None:
    def stop() -> None:
        raise Interrupted("asked to")

    with pytest.raises(Interrupted):
        greedy_coreset(torch.randn(50, 3), 5, check=stop)
