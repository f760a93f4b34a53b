"""How a tap's output becomes a map (B, C, H, W): told from its axes, or asked of timm, never guessed.

A module's output of four axes is a map where the axes say which of them are height and width: those that have
the picture's proportions. Where a network works on tokens (B, N, C) the module's output does not tell: class
and register tokens stand among them, windows and hierarchies order them in their own ways. timm's
``forward_intermediates`` knows them, at the places that ``feature_info`` names.

Legend: x_B3HW pictures, y_BCHW features; B batch, C channels, H W a map, N tokens.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from nfbmr.errors import BackboneError
from nfbmr.features.graph import Hooked
from nfbmr.features.inputs import native_size
from nfbmr.features.taps import NORM, feature_info, feature_names

Layout = Literal["NCHW", "NHWC"]
"""The order of a tensor's axes in memory."""
_BATCH = 2
FAILURES = (RuntimeError, AssertionError, ValueError, TypeError, NotImplementedError, IndexError)
"""What torch and timm raise where a network does not fit a size."""


@dataclass(frozen=True)
class Reading:
    """How a network's taps are read.

    Attributes:
        layouts: Of each tap's module, where the modules' own outputs are maps; else none.
        indices: Of each tap among timm's intermediate features, where these are asked for; else none.
        normed: Whether a tap is the last feature behind the final norm.
    """

    layouts: tuple[Layout, ...] = ()
    indices: tuple[int, ...] = ()
    normed: tuple[bool, ...] = ()

    def layouts_of(self, taps: Sequence[str]) -> tuple[Layout, ...]:
        """The layout of each tap's map; timm gives its intermediate features channels first."""
        return self.layouts or tuple("NCHW" for _ in taps)


class Intermediates(nn.Module):
    """timm's intermediate features, and nothing after the last of them.

    Args:
        model: A timm model.
        reading: Which features.
        prune: Take the layers after the last one out of `model`.
    """

    def __init__(self, model: nn.Module, reading: Reading, *, prune: bool = False) -> None:
        super().__init__()
        self.model = model
        self.reading = reading
        self.wanted = sorted(set(reading.indices))
        if prune:
            keep = any(reading.normed)
            model.prune_intermediate_layers(  # type: ignore[operator]
                self.wanted, prune_norm=not keep, prune_head=True
            )

    def forward(self, x_B3HW: Tensor) -> tuple[Tensor, ...]:
        """Features in the order of the taps, each (B, C, H, W)."""
        call = cast(Callable[..., list[Tensor]], self.model.forward_intermediates)
        maps = call(x_B3HW, indices=self.wanted, stop_early=True, output_fmt="NCHW", intermediates_only=True)
        by_index = dict(zip(self.wanted, maps, strict=True))
        taps = []
        for index, normed in zip(self.reading.indices, self.reading.normed, strict=True):
            y_BCHW = by_index[index]
            if normed:
                norm = cast(nn.Module, self.model.norm)
                y_BCHW = cast(Tensor, norm(y_BCHW.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
            taps.append(y_BCHW)
        return tuple(taps)


def reading_of(model: nn.Module, taps: Sequence[str], name: str) -> Reading:
    """How a network's taps are read; nothing is computed.

    Args:
        model: A network, with numbers or without.
        taps: Names of its taps.
        name: timm's.

    Raises:
        BackboneError: It cannot be told what a tap's axes are.
    """
    size = native_size(model)
    modules = dict(model.named_modules())
    outputs: tuple[object, ...] = ()
    if all(tap in modules for tap in taps):
        outputs = _tried(model, Hooked(model, taps), size, name)
        layouts = tuple(layout_of(y, size) if isinstance(y, Tensor) else None for y in outputs)
        if any(layout == "either" for layout in layouts):
            layouts = _told_by_a_rectangle(model, taps, size, layouts)
        if all(layout in ("NCHW", "NHWC") for layout in layouts):
            return Reading(layouts=cast(tuple[Layout, ...], layouts))
    shown = dict(zip(taps, outputs, strict=False))
    return _intermediates(model, taps, name, size, shown)


def layout_of(y: Tensor, size: tuple[int, int]) -> Layout | Literal["either"] | None:
    """Which axes of a module's output are height and width; None where none are, or the batch is not first.

    Args:
        y: For a batch of two pictures.
        size: (H, W) of the pictures.

    Example:
        >>> layout_of(torch.empty(2, 64, 7, 7), (224, 224)), layout_of(torch.empty(2, 7, 7, 64), (224, 224))
        ('NCHW', 'NHWC')
        >>> layout_of(torch.empty(2, 7, 7, 7), (224, 224)), layout_of(torch.empty(2, 50, 64), (224, 224))
        ('either', None)
    """
    if y.ndim != 4 or y.shape[0] != _BATCH:
        return None
    first, last = _alike(y.shape[2:], size), _alike(y.shape[1:3], size)
    if first and last:
        return "either"
    return "NCHW" if first else "NHWC" if last else None


def _alike(side: Sequence[int], size: tuple[int, int]) -> bool:
    """Whether a map has the proportions of its picture, to a position."""
    height, width = size
    slack = 0 if height == width else max(size)
    return abs(side[0] * width - side[1] * height) <= slack


def _told_by_a_rectangle(
    model: nn.Module, taps: Sequence[str], size: tuple[int, int], layouts: tuple[Any, ...]
) -> tuple[Any, ...]:
    """Layouts where a square left open which axis is which: as many channels as positions on a side."""
    wide = (size[0], 2 * size[1])
    try:
        outputs = _run(model, Hooked(model, taps), wide)
    except FAILURES:
        return layouts
    rectangular = [layout_of(y, wide) if isinstance(y, Tensor) else None for y in outputs]
    return tuple(new if old == "either" else old for old, new in zip(layouts, rectangular, strict=True))


def _intermediates(
    model: nn.Module, taps: Sequence[str], name: str, size: tuple[int, int], shown: dict[str, object]
) -> Reading:
    """The taps among timm's intermediate features, seen to be what ``feature_info`` says of them."""
    named = feature_names(model)
    norm = has_norm(model)
    lacking = next((tap for tap in taps if tap not in named and not (norm and tap == NORM)), None)
    if lacking is not None or not hasattr(model, "forward_intermediates"):
        raise _no_map(name, lacking or taps[0], shown, (*named, *((NORM,) if norm else ())))
    last = len(named) - 1
    reading = Reading(
        indices=tuple(last if tap not in named else named.index(tap) for tap in taps),
        normed=tuple(tap not in named for tap in taps),
    )
    outputs = _tried(model, Intermediates(model, reading), size, name)
    info = feature_info(model)
    for tap, index, y in zip(taps, reading.indices, outputs, strict=True):
        if not (
            isinstance(y, Tensor)
            and y.ndim == 4
            and y.shape[:2] == (_BATCH, info[index]["num_chs"])
            and _alike(y.shape[2:], size)
        ):
            raise _no_map(name, tap, {tap: y}, named)
    return reading


def has_norm(model: nn.Module) -> bool:
    """Whether a network's last tokens can be had behind its final norm: all features are of one size."""
    norm, info = getattr(model, NORM, None), feature_info(model)
    ask = getattr(model, "forward_intermediates", None)
    return (
        isinstance(norm, nn.Module)
        and not isinstance(norm, nn.Identity | nn.BatchNorm2d)
        and ask is not None
        and "norm" in inspect.signature(ask).parameters
        and len({feature["reduction"] for feature in info}) == 1
        and len({feature["num_chs"] for feature in info}) == 1
        and any(path.endswith("patch_embed") for path, _ in model.named_children())
    )


def _no_map(name: str, tap: str, shown: dict[str, object], known: tuple[str, ...]) -> BackboneError:
    y = shown.get(tap)
    shape = f" but {tuple(y.shape)}" if isinstance(y, Tensor) else f" but a {type(y).__name__}" if y else ""
    fix = f"taps that do: {_ranges(known)}" if known and tap not in known else "take another backbone"
    return BackboneError(
        f"the tap {tap!r} gives no feature map (B, C, H, W){shape}: its axes do not tell which are height "
        "and width",
        where=name,
        fix=f"{fix} (nfbmr backbones {name})",
    )


def _ranges(names: tuple[str, ...], most: int = 8) -> str:
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[:3])}, ..., {', '.join(names[-2:])}"


def _tried(model: nn.Module, net: nn.Module, size: tuple[int, int], name: str) -> tuple[object, ...]:
    try:
        return _run(model, net, size)
    except FAILURES as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:160]
        raise BackboneError(
            f"its maps cannot be told from its structure alone ({reason})",
            where=name,
            fix="take another backbone (nfbmr backbones lists taps and sizes)",
        ) from error


def _run(model: nn.Module, net: nn.Module, size: tuple[int, int]) -> tuple[object, ...]:
    """What a network gives for two pictures of a size, without numbers."""
    ghosts = {key: tensor.to("meta") for key, tensor in tensors_of(net)}
    with torch.inference_mode():
        x_B3HW = torch.empty(_BATCH, 3, *size, device="meta")
        outputs: tuple[object, ...] = torch.func.functional_call(net, ghosts, (x_B3HW,))
    return outputs


def tensors_of(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers by name."""
    return [*module.named_parameters(), *module.named_buffers()]
