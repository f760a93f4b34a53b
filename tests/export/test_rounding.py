"""Rounding to 16 bits as numbers: what a cast gives, in a runtime that leaves the cast out."""

from __future__ import annotations

import numpy as np
import onnx_ir
import onnxruntime
import openvino
import pytest
import torch
from torch import Tensor, nn

from nfbmr.export.network import to_16_bits
from nfbmr.export.rounding import round_before_casts

TYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class Rounds(nn.Module):
    """Features as they come back from the store."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        """Rounded."""
        return to_16_bits(x, self.dtype).float()


def values() -> Tensor:
    """Of all sizes; ties to both sides, what is beside them, powers of two, zero, and what is too large."""
    random = torch.Generator().manual_seed(0)
    spread = torch.randn(20_000, generator=random) * torch.exp2(
        torch.randint(-28, 20, (20_000,), generator=random)
    )
    powers = torch.exp2(torch.arange(-24.0, 17.0))
    steps = torch.arange(1024.0, 2048.0)[:, None] + torch.tensor([0.25, 0.5, 0.75])
    ties = torch.cat([(steps * power).flatten() for power in (2.0**-24, 2.0**-12, 1.0)])
    exact = torch.cat([powers, ties, torch.tensor([0.0, 65504.0, 65519.0, 65520.0, 1e9])])
    beside = [torch.nextafter(exact, torch.tensor(far)) for far in (0.0, torch.inf)]
    every = torch.cat([spread, exact, *beside])
    return torch.cat([every, -every])


@pytest.fixture(params=TYPES)
def written(request: pytest.FixtureRequest) -> tuple[torch.dtype, bytes]:
    """A graph that casts, with its roundings, and the type."""
    dtype = TYPES[request.param]
    program = torch.onnx.export(
        Rounds(dtype).eval(),
        (torch.zeros(8),),
        dynamo=True,
        opset_version=18,
        dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
        verbose=False,
    )
    assert program is not None
    assert round_before_casts(program.model.graph) == 1
    return dtype, onnx_ir.to_proto(program.model).SerializeToString()


def test_openvino_rounds_as_a_cast_does(written: tuple[torch.dtype, bytes]) -> None:
    dtype, graph = written
    core = openvino.Core()
    model = core.compile_model(core.read_model(graph), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    given = model([values().numpy()])[0]
    np.testing.assert_array_equal(given, to_16_bits(values(), dtype).float().numpy())


def test_a_runtime_that_casts_finds_nothing_left_to_round(written: tuple[torch.dtype, bytes]) -> None:
    dtype, graph = written
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (given,) = session.run(None, {session.get_inputs()[0].name: values().numpy()})
    np.testing.assert_array_equal(given, to_16_bits(values(), dtype).float().numpy())
