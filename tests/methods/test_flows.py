"""Flows of the methods: inverse, and log-determinant against autograd, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nfbmr.config import Config, FlowConfig
from nfbmr.flows.flow import Flow
from nfbmr.methods.cflow.model import CFlowStage, log_likelihood, position_code
from nfbmr.methods.cs_flow.model import CrossScaleFlow
from nfbmr.methods.differnet.model import DifferNetStage

SMALL = FlowConfig(blocks=3, hidden=5, kernels=(3,))
Shapes = tuple[tuple[int, ...], ...]


def disturbed(module: nn.Module) -> nn.Module:
    """Weights away from their beginning, where last layers are zero and blocks are permutations."""
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return module.double().eval()


def tnf() -> tuple[Callable[..., Any], Callable[..., Any], Shapes]:
    flow = disturbed(Flow((6, 3, 3), SMALL, seed=0))
    return flow, lambda z: (flow.inverse(z),), ((6, 3, 3),)  # type: ignore[operator]


def cs_flow() -> tuple[Callable[..., Any], Callable[..., Any], Shapes]:
    flow = disturbed(CrossScaleFlow(((6, 4, 4), (6, 2, 2), (6, 1, 1)), SMALL, seed=0))
    return flow, flow.inverse, ((6, 4, 4), (6, 2, 2), (6, 1, 1))  # type: ignore[return-value]


def differnet() -> tuple[Callable[..., Any], Callable[..., Any], Shapes]:
    flow = disturbed(DifferNetStage((7, 1, 1), Config(flow=SMALL)).module)
    return flow, lambda z: (flow(z, rev=True)[0],), ((7, 1, 1),)


def cflow() -> tuple[Callable[..., Any], Callable[..., Any], Shapes]:
    settings = {"flow": {"blocks": 3, "clamp": 1.9}, "cflow": {"code": 8}}
    flow = disturbed(CFlowStage(((6, 2, 2),), Config.model_validate(settings)).flows[0])
    code = torch.randn(3, 8, dtype=torch.float64)
    return (
        lambda y: flow(y, [code[: len(y)]]),
        lambda z: (flow(z, [code[: len(z)]], rev=True)[0],),
        ((6,),),
    )


FLOWS = {"nf": tnf, "cs-flow": cs_flow, "differnet": differnet, "cflow": cflow}


def inputs(shapes: Shapes, count: int = 3) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(2)
    return tuple(torch.randn(count, *shape, generator=generator, dtype=torch.float64) for shape in shapes)


def as_tuple(z: Any) -> tuple[Tensor, ...]:
    return z if isinstance(z, tuple) else (z,)


@pytest.mark.parametrize("name", FLOWS)
def test_the_inverse_gives_back_the_input(name: str) -> None:
    forward, inverse, shapes = FLOWS[name]()
    y = inputs(shapes)
    z, _ = forward(*y)
    for one, again in zip(y, inverse(*as_tuple(z)), strict=True):
        # FrEIA's blocks turn by matrices that are orthogonal as far as float32 tells.
        tolerance = 1e-5 if name == "cflow" else 1e-8
        torch.testing.assert_close(again, one, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", FLOWS)
def test_the_log_determinant_is_that_of_the_jacobian(name: str) -> None:
    forward, _, shapes = FLOWS[name]()
    y = inputs(shapes, 1)
    sizes = [one.numel() for one in y]

    def flattened(x: Tensor) -> Tensor:
        parts = [part.view(1, *shape) for part, shape in zip(x.split(sizes), shapes, strict=True)]
        return torch.cat([z.flatten() for z in as_tuple(forward(*parts)[0])])

    jacobian = torch.autograd.functional.jacobian(flattened, torch.cat([one.flatten() for one in y]))
    logdet = torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(forward(*y)[1].squeeze(), logdet, rtol=1e-6, atol=1e-6)


def test_sizes_of_cs_flow_hear_of_each_other() -> None:
    forward, _, shapes = FLOWS["cs-flow"]()
    y = inputs(shapes, 1)
    before, _ = forward(*y)
    after, _ = forward(y[0], y[1], y[2] + 1)
    assert all(not torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_cflow_scores_the_log_density_of_each_position() -> None:
    """Against torch's own normal distribution, through the change of variables."""
    settings = {"flow": {"blocks": 2, "clamp": 1.9}, "cflow": {"code": 8}}
    flow = disturbed(CFlowStage(((4, 2, 3),), Config.model_validate(settings)).flows[0])
    y = torch.randn(2, 4, 2, 3, dtype=torch.float64)
    code = position_code(8, 2, 3).double()
    log_likelihoods = log_likelihood(flow, y, code).detach()
    for b, i, j in ((0, 0, 0), (1, 1, 2)):
        z, logdet = (one.detach() for one in flow(y[b, :, i, j][None], [code[:, i, j][None]]))
        density = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum() + logdet[0]
        assert float(log_likelihoods[b, i, j]) == pytest.approx(float(density / 4), rel=1e-5)


def test_a_positions_code_tells_it_from_all_others() -> None:
    code = position_code(16, 5, 7).flatten(1).T
    assert len(torch.unique(code, dim=0)) == 35
