from __future__ import annotations

import importlib
import sys
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nfbmr.config import FlowConfig
from nfbmr.errors import BackboneError, ConfigError
from nfbmr.features.table import TensorTable
from nfbmr.flows.coupling import AffineCoupling, Subnet
from nfbmr.flows.flow import Flow

shapes = st.tuples(st.integers(2, 7), st.integers(1, 4), st.integers(1, 4))
configs = st.builds(
    FlowConfig,
    blocks=st.integers(1, 5),
    hidden=st.integers(1, 6),
    kernels=st.lists(st.sampled_from([1, 3, 5]), min_size=1, max_size=4).map(tuple),
    clamp=st.floats(0.1, 3.0),
    activation=st.sampled_from(["relu", "leaky_relu", "gelu", "silu"]),
    padding=st.sampled_from(["zeros", "replicate"]),
    standardize=st.booleans(),
)


def stirred(shape_CHW: tuple[int, int, int], config: FlowConfig, seed: int = 0) -> Flow:
    """A flow in float64 that is no longer the identity."""
    flow = Flow(shape_CHW, config, seed).double()
    generator = torch.Generator().manual_seed(seed)
    for parameter in flow.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    features = torch.randn(9, *shape_CHW, generator=generator, dtype=torch.float64) * 4 - 2
    flow.standardise.fit(TensorTable(features))
    return flow


@settings(max_examples=40)
@given(shapes, configs, st.integers(0, 2**16))
def test_the_inverse_undoes_the_flow(shape: tuple[int, int, int], config: FlowConfig, seed: int) -> None:
    flow = stirred(shape, config, seed)
    y = torch.randn(3, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    z, logdet = flow(y)
    assert z.shape == y.shape
    assert logdet.shape == (3,)
    torch.testing.assert_close(flow.inverse(z), y)
    torch.testing.assert_close(flow(flow.inverse(y))[0], y)


@settings(max_examples=25)
@given(st.tuples(st.integers(2, 5), st.integers(1, 3), st.integers(1, 3)), configs, st.integers(0, 2**16))
def test_the_log_determinant_is_that_of_the_jacobian(
    shape: tuple[int, int, int], config: FlowConfig, seed: int
) -> None:
    flow = stirred(shape, config, seed)
    y = torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    jacobian: Any = torch.autograd.functional.jacobian(lambda v: flow(v)[0], y)
    expected = torch.linalg.slogdet(jacobian.reshape(y.numel(), y.numel())).logabsdet
    torch.testing.assert_close(flow(y)[1][0], expected)


def test_gradients_are_those_of_finite_differences() -> None:
    flow = stirred((5, 2, 2), FlowConfig(blocks=2, hidden=3, activation="silu"))
    y = torch.randn(2, 5, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(flow, (y,))


@pytest.mark.parametrize("channels", [2, 3, 7, 8])
def test_odd_and_even_channels_are_both_split_and_all_transformed(channels: int) -> None:
    flow = stirred((channels, 3, 3), FlowConfig(blocks=1, hidden=4, standardize=False))
    y = torch.randn(2, channels, 3, 3, dtype=torch.float64)
    z, _ = flow(y)
    order = cast(torch.Tensor, flow.blocks.module_list[0].order)
    assert sorted(order.tolist()) == list(range(channels))
    moved = (z - y[:, order]).abs().amax((0, 2, 3))
    assert bool((moved > 0).all()), "both halves are transformed"


def test_a_chain_gives_the_numbers_and_has_the_weights_of_freias() -> None:
    from FrEIA.framework import SequenceINN

    shape, config = (6, 4, 4), FlowConfig(blocks=3, hidden=8, kernels=(3,))
    chain = stirred(shape, config).blocks
    theirs = SequenceINN(*shape)
    for _ in range(config.blocks):
        theirs.append(
            AffineCoupling,
            subnet=partial(Subnet, kernel=3, config=config),
            clamp=config.clamp,
            generator=torch.Generator(),
        )
    theirs.double().load_state_dict(chain.state_dict())
    y = torch.randn(2, *shape, dtype=torch.float64)
    for rev in (False, True):
        for ours, other in zip(chain(y, rev=rev), theirs(y, rev=rev), strict=True):
            assert torch.equal(ours, other)


def test_an_untrained_flow_is_a_permutation() -> None:
    flow = Flow((6, 4, 4), FlowConfig(hidden=8), seed=3)
    y = torch.randn(2, 6, 4, 4)
    z, logdet = flow(y)
    torch.testing.assert_close(z.sort(1).values, y.sort(1).values)
    torch.testing.assert_close(logdet, torch.zeros(2))


def test_the_log_scale_never_leaves_the_clamp() -> None:
    flow = Flow((4, 2, 2), FlowConfig(blocks=1, hidden=4, clamp=1.5, standardize=False), seed=0)
    for parameter in flow.parameters():
        nn.init.normal_(parameter, std=1e4)
    _, logdet = flow(torch.randn(8, 4, 2, 2))
    assert float(logdet.detach().abs().max()) <= 1.5 * 4 * 2 * 2


def test_the_log_determinant_stays_exact_under_bfloat16_autocast() -> None:
    """The subnets may answer coarsely, but z and its log-determinant must belong to one and the same map."""
    flow = stirred((6, 4, 4), FlowConfig(hidden=8)).float()
    y = torch.randn(2, 6, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        z, logdet = flow(y)
        back = flow.inverse(z)
    assert z.dtype == logdet.dtype == torch.float32
    torch.testing.assert_close(back, y, rtol=1e-4, atol=1e-4)


def test_parameters_are_those_counted_by_hand() -> None:
    # Halves of 3; each subnet: 3 -> 10 and 10 -> 6, with biases; two subnets a block.
    def block(k: int) -> int:
        return 2 * (3 * 10 * k * k + 10 + 10 * 6 * k * k + 6)

    flow = Flow((6, 8, 8), FlowConfig(blocks=5, hidden=10, kernels=(3, 1, 5)), seed=0)
    expected = block(3) + block(1) + 3 * block(5)
    assert sum(p.numel() for p in flow.parameters()) == expected


def test_the_papers_setting() -> None:
    subnet_weights = [(152, 1024, k) for k in (3, 3, 3, 5)]
    flow = Flow((304, 24, 24), FlowConfig(hidden=1024), seed=0)
    expected = sum(2 * ((c * h + h * 304) * k * k + h + 304) for c, h, k in subnet_weights)
    assert sum(p.numel() for p in flow.parameters()) == expected


def test_a_seed_fixes_everything_and_the_callers_random_numbers_are_left_alone() -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    first = Flow((6, 4, 4), FlowConfig(hidden=4), seed=5).state_dict()
    assert torch.equal(torch.rand(3), expected)
    again = Flow((6, 4, 4), FlowConfig(hidden=4), seed=5).state_dict()
    other = Flow((6, 4, 4), FlowConfig(hidden=4), seed=6).state_dict()
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first if k.endswith("order"))


def test_a_state_dict_carries_permutations_and_standardisation() -> None:
    flow = stirred((5, 3, 3), FlowConfig(hidden=4), seed=1)
    copy = Flow((5, 3, 3), FlowConfig(hidden=4), seed=2).double()
    copy.load_state_dict(flow.state_dict())
    y = torch.randn(2, 5, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(copy(y), flow(y), rtol=0, atol=0)


def test_one_channel_cannot_be_split() -> None:
    with pytest.raises(BackboneError, match="two channels"):
        Flow((1, 4, 4), FlowConfig(), seed=0)


def test_reflect_padding_needs_a_map_wider_than_it() -> None:
    Flow((4, 3, 3), FlowConfig(hidden=2, padding="reflect"), seed=0)(torch.randn(1, 4, 3, 3))
    with pytest.raises(ConfigError, match=r"flow\.padding"):
        Flow((4, 2, 2), FlowConfig(hidden=2, padding="reflect"), seed=0)


def test_importing_is_silent_even_where_freia_was_never_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FrEIA's docstrings warn when Python first compiles them, which would end the import here."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path))
    name = "nfbmr.methods.cflow.model"
    importlib.import_module(name)
    for loaded in [loaded for loaded in sys.modules if loaded.split(".")[0] == "FrEIA"]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.delitem(sys.modules, name)
    importlib.import_module(name)
    assert list(tmp_path.rglob("coupling_layers*.pyc")), "FrEIA was compiled anew"
