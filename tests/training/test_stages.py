from __future__ import annotations

import math

import torch

from nfbmr.config import FlowConfig, MappingConfig
from nfbmr.features.table import TensorTable
from nfbmr.flows.flow import Flow
from nfbmr.mapping.bmr import BMR
from nfbmr.scoring.fusion import Scorer
from nfbmr.training.stages import FlowStage, MappingStage


def test_stage_one_is_the_negative_log_likelihood_of_one_dimension() -> None:
    """Equation 8, against torch's own normal distribution; the constant log(2 pi) / 2 is left out."""
    flow = Flow((4, 3, 3), FlowConfig(hidden=5), seed=0).double()
    for parameter in flow.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    y = torch.randn(6, 4, 3, 3, dtype=torch.float64)
    flow.standardise.fit(TensorTable(y * 2 + 1))
    z, logdet = flow(y)
    log_normal = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum((1, 2, 3))
    expected = -(log_normal + logdet).mean() / 36 - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(FlowStage(flow).loss(y), expected)


def test_an_untrained_flow_on_standardised_features_starts_at_one_half() -> None:
    y = torch.randn(32, 4, 5, 5) * 7 - 3
    flow = Flow((4, 5, 5), FlowConfig(hidden=5), seed=0)
    flow.standardise.fit(TensorTable(y))
    constant = float(flow.standardise.logdet(25)) / 100
    assert math.isclose(float(FlowStage(flow).loss(y).detach()) + constant, 0.5, rel_tol=1e-4)


def test_stage_two_is_the_mean_of_both_errors() -> None:
    bmr = BMR(3, MappingConfig(latent=4))
    y, z = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    expected = torch.nn.functional.mse_loss(bmr.source(z), y) + torch.nn.functional.mse_loss(bmr.target(y), z)
    torch.testing.assert_close(MappingStage(bmr).loss(y, z), expected)


def test_stage_two_judges_by_equation_14():
    flow = Flow((3, 4, 4), FlowConfig(hidden=4), seed=0)
    stage = MappingStage(BMR(3, MappingConfig(latent=4)), flow.standardise)
    y, z = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    y_hat, z_hat = stage.mapping(y, z)
    expected = ((y - y_hat).square().sum(1) + (z - z_hat).square().sum(1)) / 2
    fused = Scorer(stage.components, stage.paper_weights).fuse(stage.maps(y, z))
    torch.testing.assert_close(fused, expected)


def test_stage_one_judges_by_half_the_squared_norm_whether_z_is_known_or_not():
    flow = Flow((3, 4, 4), FlowConfig(hidden=4), seed=0)
    stage = FlowStage(flow)
    y = torch.randn(2, 3, 4, 4)
    z = stage.latents(y)
    fused = Scorer(stage.components, stage.paper_weights).fuse(stage.maps(y, z))
    torch.testing.assert_close(fused, z.square().sum(1) / 2)
    torch.testing.assert_close(stage.maps(y), stage.maps(y, z))


def test_stage_two_standardises_y_as_the_flow_does_and_trains_nothing_of_it() -> None:
    y, z = torch.randn(8, 3, 4, 4) * 50 + 9, torch.randn(8, 3, 4, 4)
    flow = Flow((3, 4, 4), FlowConfig(hidden=4), seed=0)
    flow.standardise.fit(TensorTable(y))
    bmr = BMR(3, MappingConfig(latent=4))
    stage = MappingStage(bmr, flow.standardise)
    torch.testing.assert_close(stage.loss(y, z), MappingStage(bmr).loss(flow.standardise(y), z))
    assert set(stage.module.state_dict()) == set(bmr.state_dict())


def test_features_like_none_that_were_learned_from_get_a_large_score_and_a_finite_one() -> None:
    flow = Flow((4, 3, 3), FlowConfig(hidden=8, blocks=8), seed=0)
    for parameter in flow.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    stage = FlowStage(flow)
    common, strange = torch.randn(2, 4, 3, 3), 1e9 * torch.randn(2, 4, 3, 3)
    assert stage.maps(strange).isfinite().all()
    assert stage.maps(strange).min() > stage.maps(common).max()
