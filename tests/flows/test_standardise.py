from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nfbmr.features.table import TensorTable
from nfbmr.flows.standardise import Standardise


@settings(max_examples=30)
@given(st.integers(1, 20), st.integers(1, 5), st.integers(1, 7), st.integers(0, 999))
def test_mean_and_deviation_are_those_of_all_values_whatever_the_batch(
    images: int, channels: int, batch: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    offset = 100 * torch.randn(channels, 1, 1, generator=generator)
    features = torch.randn(images, channels, 4, 3, generator=generator) + offset
    standardise = Standardise(channels).fit(TensorTable(features), batch=batch)
    torch.testing.assert_close(standardise.mean, features.double().mean((0, 2, 3)).float())
    deviation = features.double().std((0, 2, 3), correction=0).float()
    torch.testing.assert_close(standardise.std, deviation, rtol=1e-4, atol=1e-4)


def test_only_the_rows_named_are_measured() -> None:
    features = torch.randn(6, 2, 3, 3)
    features[3:] += 1000
    standardise = Standardise(2).fit(TensorTable(features), torch.tensor([0, 1, 2]))
    assert float(standardise.mean.abs().max()) < 10


def test_what_was_fitted_comes_out_standard_and_goes_back() -> None:
    features = torch.randn(16, 3, 4, 4) * torch.tensor([0.1, 1.0, 30.0])[:, None, None] + 5
    standardise = Standardise(3).fit(TensorTable(features))
    y = standardise(features)
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(y.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(standardise.inverse(y), features, atol=1e-4, rtol=1e-4)


def test_a_dead_channel_neither_divides_by_zero_nor_becomes_the_loudest() -> None:
    features = torch.randn(8, 3, 4, 4)
    features[:, 1] = 0.0
    standardise = Standardise(3).fit(TensorTable(features))
    woken = torch.full((1, 3, 4, 4), 0.01)
    assert float(standardise(woken)[:, 1].abs().max()) < 100
    assert bool(standardise.logdet(16).isfinite())


def test_switched_off_it_stays_the_identity() -> None:
    standardise = Standardise(2, enabled=False).fit(TensorTable(torch.randn(4, 2, 2, 2) * 9))
    y = torch.randn(3, 2, 2, 2)
    assert torch.equal(standardise(y), y)
    assert float(standardise.logdet(4)) == 0.0


def test_stored_half_precision_is_measured_in_double() -> None:
    features = (torch.randn(50, 1, 16, 16) + 2000).half()
    standardise = Standardise(1).fit(TensorTable(features))
    torch.testing.assert_close(standardise.mean, features.double().mean((0, 2, 3)).float())
