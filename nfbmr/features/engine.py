"""The forward pass in one arithmetic, by one library, on one device.

The arithmetic (fp32 or bf16) and the library are part of what stored features are; whether the pass is
compiled is not. Which of them are taken is :mod:`nfbmr.features.choosing`'s.
"""

from __future__ import annotations

import copy
import logging
import math
from typing import Any, Literal, cast

import torch
from torch import Tensor

from nfbmr.config import Symmetry
from nfbmr.data.pictures import Size, sides
from nfbmr.features.backbone import Backbone
from nfbmr.features.fused import fused
from nfbmr.features.openvino_pass import OpenVinoPass
from nfbmr.features.symmetry import symmetrized
from nfbmr.features.tiles import tiling_of, whole_maps

log = logging.getLogger(__name__)

Compute = Literal["fp32", "bf16"]
"""Arithmetic of the forward pass."""
Library = Literal["torch", "openvino"]
"""What computes the forward pass."""
DTYPES: dict[Compute, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""The type of what is computed with, by arithmetic."""
_PIXELS_IN_CACHE = 4 * 384**2  # four pictures of 384 px were fastest: 2.1 times as fast as sixteen
_ALL = 1 << 30


class Engine:
    """A backbone in one arithmetic on one device, as fast as it goes there.

    On the CPU convolutions are fused with their activations, and a batch is worked off a few pictures at a
    time: their maps then stay in the cache.

    Args:
        backbone: Left as it is; the engine works on a copy.
        compute: fp32 or bf16.
        size: (H, W) of the pictures in pixels, or the side of a square.
        device: Where it runs.
        compiled: Try torch.compile with frozen weights; where that fails the pass runs without.
        tile: Side in pixels of the tiles of larger pictures (:mod:`nfbmr.features.tiles`); None for none.
        symmetry: Images of each picture that features are averaged over (:mod:`nfbmr.features.symmetry`).
        library: ``openvino`` for :class:`~nfbmr.features.openvino_pass.OpenVinoPass`: on the CPU, in fp32,
            and not compiled by torch.

    Raises:
        BackboneError: The backbone's maps cannot be joined from tiles, or it does not go into OpenVINO.
        MissingPackageError: OpenVINO is not installed.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        compute: Compute,
        size: Size,
        device: str = "cpu",
        compiled: bool = False,
        tile: int | None = None,
        symmetry: Symmetry = "none",
        library: Library = "torch",
    ) -> None:
        self.backbone = backbone
        self.dtype = DTYPES[compute]
        self.device = torch.device(device)
        on_cpu = self.device.type == "cpu"
        self._tiling = tiling_of(sides(size), tile)
        if self._tiling is not None:
            size = self._tiling.seen
            self._tiling.check(backbone)
        self._chunk = max(1, round(_PIXELS_IN_CACHE / math.prod(sides(size)))) if on_cpu else _ALL
        self._symmetry = symmetry
        self._compiled: Any = None
        self._largest = 0
        if library == "openvino":
            self._net: OpenVinoPass | Backbone = OpenVinoPass(backbone, size)
            return
        self._net = net = copy.deepcopy(backbone).to(self.device, self.dtype)
        if compiled:
            self._compiled = torch.compile(copy.copy(net), dynamic=False, options={"freezing": True})
        if on_cpu:
            net.net = fused(net.net, size, self.dtype)

    def __call__(self, x_B3SS: Tensor) -> tuple[Tensor, ...]:
        """Features of every tap, on the CPU."""
        with torch.inference_mode():
            return symmetrized(
                lambda x: whole_maps(self._tiling, self._maps, x, self.backbone), x_B3SS, self._symmetry
            )

    def _maps(self, x_B3SS: Tensor) -> tuple[Tensor, ...]:
        x = x_B3SS.to(self.device, self.dtype).contiguous(memory_format=torch.channels_last)
        parts = [self._run(part) for part in torch.split(x, self._chunk)]
        return tuple(torch.cat(taps).cpu() for taps in zip(*parts, strict=True))

    def _run(self, x: Tensor) -> tuple[Tensor, ...]:
        if self._compiled is not None:
            try:
                return self._run_compiled(x)
            except Exception as error:  # no compiler, an operator it does not know: the pass goes without
                log.warning(
                    "cannot be compiled here (%s); going on without", str(error).splitlines()[0][:160]
                )
                self._compiled = None
        return cast(tuple[Tensor, ...], self._net(x))

    def _run_compiled(self, x: Tensor) -> tuple[Tensor, ...]:
        self._largest = max(self._largest, len(x))
        lacking = self._largest - len(x)  # filled up: another batch size would be compiled anew
        full = torch.cat([x, x[:1].expand(lacking, -1, -1, -1)]) if lacking else x
        return tuple(y[: len(x)] for y in self._compiled(full))
