"""The frozen backbone's pass in OpenVINO, on CPUs where ``nfbmr[export]`` is installed.

The same float32 convolutions as torch's, in layouts that OpenVINO chooses for the whole network at once, with
additions and activations inside them: about half to two thirds of the time. Nothing of it is approximate.
Sums may run in another order, so features differ by rounding at most; they are compared with torch's before
the first is used.
"""

from __future__ import annotations

import threading
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nfbmr.data.pictures import Size, sides
from nfbmr.errors import BackboneError
from nfbmr.features.backbone import Backbone
from nfbmr.runtimes import import_openvino

TOLERANCE = 1e-3
"""Largest difference from torch's features, as a share of the largest value of a tap."""


class OpenVinoPass:
    """A backbone's maps, one picture at a time: a batch gives the same numbers as each picture alone.

    Args:
        backbone: Left as it is.
        size: (H, W) in pixels, or the side of a square, of the pictures that it will be given.

    Raises:
        MissingPackageError: OpenVINO is not installed.
        BackboneError: The network does not go into OpenVINO, or has other numbers there.
    """

    def __init__(self, backbone: Backbone, size: Size) -> None:
        ov = import_openvino()
        self._lock = threading.Lock()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            x_13HW = torch.randn(1, 3, *sides(size))
            expected = tuple(y.contiguous() for y in backbone(x_13HW))
            try:
                self._run = _compiled(ov, backbone, x_13HW)
                actual = self(x_13HW)
            except Exception as error:  # tracing runs the network's own code, and not every operator is known
                raise _unfit(backbone, f"cannot be brought into OpenVINO ({_first_line(error)})") from error
        if not all(map(_close, actual, expected)):
            raise _unfit(backbone, "has other numbers in OpenVINO than in torch")

    def __call__(self, x_B3HW: Tensor) -> tuple[Tensor, ...]:
        """Features of every tap, each y_BCHW, channels_last."""
        taps: tuple[Tensor, ...] = ()
        with self._lock:  # a request holds one picture's maps
            for b, x_3HW in enumerate(x_B3HW):
                maps = self._run(x_3HW[None].contiguous())
                if not taps:
                    shapes = [(len(x_B3HW), *y_1CHW.shape[1:]) for y_1CHW in maps]
                    taps = tuple(torch.empty(s, memory_format=torch.channels_last) for s in shapes)
                for tap_BCHW, y_1CHW in zip(taps, maps, strict=True):
                    tap_BCHW[b] = y_1CHW[0]
        return taps


class _Maps(nn.Module):
    """A backbone as a module whose `graph` is torch's: a traced network has one of its own."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x_13HW: Tensor) -> tuple[Tensor, ...]:
        return tuple(y.contiguous() for y in self.backbone(x_13HW))


def _compiled(ov: Any, backbone: Backbone, x_13HW: Tensor) -> Any:
    """One picture's tensor to its maps' tensors, which the next call overwrites."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # tracing warns of sizes that become constants: they are constant
        trace: Any = torch.jit.trace  # its types are not known
        traced = trace(_Maps(backbone).eval(), x_13HW, check_trace=False)
        # With its type: of what is left open, OpenVINO's CPU plugin has not every operator.
        picture = (ov.PartialShape(list(x_13HW.shape)), ov.Type.f32)
        model = ov.convert_model(torch.jit.freeze(traced), input=[picture])
    how = {
        "INFERENCE_PRECISION_HINT": "f32",  # left alone, it takes bfloat16 where the processor has it
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        # Each process would pin its threads to the same first cores, whoever computes there already.
        "ENABLE_CPU_PINNING": False,
    }
    request = ov.Core().compile_model(model, "CPU", how).create_infer_request()
    taps = len(model.outputs)

    def run(x: Tensor) -> list[Tensor]:
        request.infer([np.asarray(x)], share_inputs=True)
        return [torch.from_numpy(request.get_output_tensor(tap).data) for tap in range(taps)]

    return run


def _close(actual: Tensor, expected: Tensor) -> bool:
    return bool((actual - expected).abs().max() <= TOLERANCE * expected.abs().max())


def _unfit(backbone: Backbone, what: str) -> BackboneError:
    return BackboneError(f"the backbone {what}", where=backbone.name, fix="set features.engine=torch")


def _first_line(error: Exception) -> str:
    """The first one with words of its own: OpenVINO begins with where in its sources it was."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return next((line for line in lines if not line.startswith(("Exception from", "Check "))), lines[0])[:160]
