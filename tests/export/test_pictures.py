"""Operators of an exported graph against what the product does to pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir
import onnxruntime
import openvino
import pytest
import torch
from PIL import Image

from nfbmr.data.pictures import Picture, Rotate
from nfbmr.data.pictures import exposed as exposed_picture
from nfbmr.data.pictures import resized as resized_picture
from nfbmr.data.sources import Decoded
from nfbmr.export.pictures import Turned, exposed, resized


def noise(height: int, width: int) -> np.ndarray:
    pixels = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    pixels[: height // 3] = 137  # flat, where nothing may move
    return pixels


def tensor_of(pixels_HWC: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels_HWC.copy()).permute(2, 0, 1)[None].float()


@pytest.mark.parametrize("size", [(64, 64), (96, 352), (33, 130), (256, 224)], ids=str)
@pytest.mark.parametrize("image", [(50, 70), (256, 224), (300, 41), (97, 800), (1, 3)], ids=str)
def test_resizing_is_the_trained_one_to_the_last_bit(image: tuple[int, int], size: tuple[int, int]) -> None:
    pixels_HWC = noise(*image)
    right_SSC = resized_picture(Image.fromarray(pixels_HWC), size)
    given_13SS = resized(tensor_of(pixels_HWC), size)
    assert np.array_equal(given_13SS[0].permute(1, 2, 0).numpy(), right_SSC)


@pytest.mark.parametrize("side", [33, 64, 256])
@pytest.mark.parametrize("parts", [1, 4, 5, 16])
def test_turned_squares_are_pillows_to_the_last_bit(parts: int, side: int) -> None:
    pixels_SSC = noise(side, side)
    views = Turned(parts, side)(tensor_of(pixels_SSC)).permute(0, 2, 3, 1).numpy()
    assert len(views) == parts
    for k in range(parts):
        assert np.array_equal(views[k], Rotate(360 * k / parts).apply(pixels_SSC))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_runtimes_turn_to_the_last_bit_as_well(runtime: str) -> None:
    """Though OpenVINO has no double precision."""
    pixels_SSC, parts = noise(64, 64), 16
    program = torch.onnx.export(
        Turned(parts, 64).eval(), (tensor_of(pixels_SSC),), dynamo=True, opset_version=18, verbose=False
    )
    assert program is not None
    graph = onnx_ir.to_proto(program.model).SerializeToString()
    given = tensor_of(pixels_SSC).numpy()
    if runtime == "openvino":
        core = openvino.Core()
        model = core.compile_model(core.read_model(graph), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        views = model([given])[0]
    else:
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        (views,) = session.run(None, {session.get_inputs()[0].name: given})
    for k in range(parts):
        assert np.array_equal(views[k].transpose(1, 2, 0), Rotate(360 * k / parts).apply(pixels_SSC))


@pytest.mark.parametrize("how", ["brightness", "standardize"])
def test_brightness_is_evened_out_alike(how: str) -> None:
    for pixels_HWC in (noise(40, 30) // 3, noise(40, 30) // 9 + 200, np.full((8, 8, 3), 3, np.uint8)):
        picture = Picture(Path("a"), "", held=Decoded(pixels_HWC, "a"))
        right_HWC = np.asarray(exposed_picture(picture, how))
        given_13HW = exposed(tensor_of(pixels_HWC), how)
        difference = np.abs(given_13HW[0].permute(1, 2, 0).numpy() - right_HWC)
        assert difference.max() <= 1  # where a product lies between two levels
        assert (difference > 0).mean() < 5e-3
