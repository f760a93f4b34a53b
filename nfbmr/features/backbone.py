"""A frozen timm network, cut after its last tap.

A tap names where features are read: a flat block index (0-based over the network's blocks: the MBConv blocks
of an EfficientNet, the residual blocks of a ResNet) or a module path such as ``"blocks.5"`` or ``"layer3"``;
what is read is that module's output. The network is traced no further than the last tap, so nothing after it
runs, and each batch norm is folded into the convolution before it.

Legend: x_B3SS normalised pictures, y_BCHW features; B batch, S input pixels, C channels, H W feature map.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nfbmr.config import FeatureConfig, Taps
from nfbmr.errors import BackboneError
from nfbmr.features.graph import Hooked, cut
from nfbmr.features.table import Shape
from nfbmr.features.weights import Weights, new_model, resolve_weights
from nfbmr.fields import suggestion

log = logging.getLogger(__name__)

_KEPT = 2
"""Networks that a process keeps: a method reads two at most."""

_CONTAINERS = re.compile(r"blocks|stages|layers|features|layer\d+|s\d+|stage\d+|trunk")


class Backbone(nn.Module):
    """Reads the features of one or several taps in a single pass.

    Attributes:
        name: timm's name.
        taps: Resolved module paths, in the order they were asked for.
        mean: Per-channel mean that a picture is normalised with (RGB, of values in 0..1).
        std: Its standard deviation.
        weights: Where the weights came from.
        folded: Batch norms folded into convolutions.
        traced: Whether the network could be traced; else it runs unchanged, broken off after the last tap.
    """

    def __init__(self, model: nn.Module, name: str, taps: Sequence[int | str], weights: Weights) -> None:
        super().__init__()
        from timm.data.config import resolve_model_data_config

        normal: dict[str, Any] = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
        self.name = name
        self.taps = resolve_taps(model, taps, name)
        self.mean: tuple[float, ...] = tuple(float(v) for v in normal["mean"])
        self.std: tuple[float, ...] = tuple(float(v) for v in normal["std"])
        self.weights = weights
        self._channels_last_output = _gives_channels_last(model)
        self._shapes_by_size: dict[int, dict[str, Shape]] = {}
        self.net, self.folded, self.traced = cut(model, self.taps)
        self.net.eval().requires_grad_(False)
        for parameter in self.net.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    @property
    def weights_digest(self) -> str:
        """Fingerprint of the weights."""
        return self.weights.digest

    def forward(self, x_B3SS: Tensor) -> tuple[Tensor, ...]:
        """Features of every tap, in the order of :attr:`taps`, each y_BCHW.

        Raises:
            BackboneError: A tap gives something other than a map.
        """
        outputs = zip(self.taps, self.net(x_B3SS), strict=True)
        return tuple(_map(self.name, tap, output, self._channels_last_output) for tap, output in outputs)

    def shapes(self, size: int) -> dict[str, Shape]:
        """(C, H, W) of every tap for pictures of `size` pixels; nothing is computed.

        Raises:
            BackboneError: The backbone cannot work at this size.
        """
        if size not in self._shapes_by_size:
            ghosts = {name: tensor.to("meta") for name, tensor in _tensors(self)}

            def run(x_13SS: Tensor) -> tuple[Tensor, ...]:
                maps: tuple[Tensor, ...] = torch.func.functional_call(self, ghosts, (x_13SS,))
                return maps

            self._shapes_by_size[size] = _shapes(self.name, self.taps, size, run)
        return dict(self._shapes_by_size[size])


@cache
def shapes_without_weights(backbone: str, taps: Taps, size: int) -> Mapping[str, Shape]:
    """What :meth:`Backbone.shapes` gives, for less: no weights are looked for, and nothing is traced.

    Raises:
        BackboneError: There is no such backbone or tap, or it cannot work at this size.

    Example:
        >>> dict(shapes_without_weights("test_efficientnet", (2,), 64))
        {'blocks.2.0': (32, 8, 8)}
    """
    model = new_model(backbone)
    paths = resolve_taps(model, taps, backbone)
    last = _gives_channels_last(model)
    net = Hooked(model.to("meta"), paths)

    def run(x_13SS: Tensor) -> tuple[Tensor, ...]:
        return tuple(_map(backbone, tap, y, last) for tap, y in zip(paths, net(x_13SS), strict=True))

    return _shapes(backbone, paths, size, run)


def _shapes(
    name: str, taps: Sequence[str], size: int, run: Callable[[Tensor], tuple[Tensor, ...]]
) -> dict[str, Shape]:
    try:
        with torch.inference_mode():
            y = run(torch.empty(1, 3, size, size, device="meta"))
    except BackboneError:
        raise
    except (RuntimeError, AssertionError, ValueError) as error:
        raise BackboneError(
            f"cannot work on pictures of {size} px ({str(error).splitlines()[0][:160]})",
            where=name,
            fix="set features.size to what this backbone was made for, or take a convolutional one",
        ) from error
    return {tap: (t.shape[1], t.shape[2], t.shape[3]) for tap, t in zip(taps, y, strict=True)}


def _map(name: str, tap: str, y: object, channels_last: bool) -> Tensor:
    """A tap's output as (B, C, H, W)."""
    if not isinstance(y, Tensor) or y.ndim != 4:
        shape = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
        raise BackboneError(
            f"the tap {tap!r} gives no feature map (B, C, H, W) but {shape}",
            where=name,
            fix="tap an earlier block, or a convolutional backbone",
        )
    return y.permute(0, 3, 1, 2) if channels_last else y


def _gives_channels_last(model: nn.Module) -> bool:
    return getattr(model, "output_fmt", "NCHW") == "NHWC"


def load_backbone(config: FeatureConfig) -> Backbone:
    """The backbone a configuration asks for, frozen, cut and ready.

    Raises:
        BackboneError: There is no such backbone or tap.
        WeightsError: Its weights cannot be had, or do not fit.

    Example:
        >>> net = load_backbone(FeatureConfig(backbone="test_efficientnet", weights="random", taps=(2,)))
        >>> net.taps, net.shapes(64)
        (('blocks.2.0',), {'blocks.2.0': (32, 8, 8)})
    """
    return _loaded(config.backbone, config.weights, config.taps)


def shared_backbone(config: FeatureConfig) -> Backbone:
    """:func:`load_backbone`, once for all who ask in this process; not to be changed.

    A run asks for the same network at each size, and so does the next trial. A file of weights that has been
    written anew is read anew.
    """
    file = Path(config.weights)
    written = file.stat().st_mtime_ns if file.is_file() else None
    return _kept(config.backbone, config.weights, config.taps, written)


@lru_cache(maxsize=_KEPT)
def _kept(backbone: str, weights: str, taps: Taps, written: int | None) -> Backbone:
    return _loaded(backbone, weights, taps)


def _loaded(backbone: str, weights: str, taps: Taps) -> Backbone:
    model = new_model(backbone)
    resolve_taps(model, taps, backbone)  # before weights are fetched for nothing
    found = resolve_weights(backbone, weights, model=model)
    model.load_state_dict(dict(found.state_dict), strict=False)
    return Backbone(model, backbone, taps, found)


def resolve_taps(model: nn.Module, taps: Sequence[int | str], name: str) -> tuple[str, ...]:
    """Module paths of taps given as flat block indices or as paths.

    Raises:
        BackboneError: A tap does not exist; names the nearest paths, or the range of indices. Or two taps are
            the same module, one given as an index and the other as a path.
    """
    blocks = flat_blocks(model)
    paths = tuple(_resolve(model, tap, blocks, name) for tap in taps)
    twice = next((path for n, path in enumerate(paths) if path in paths[:n]), None)
    if twice is not None:
        raise BackboneError(
            f"two taps are the same module, {twice}", where="features.taps", fix="name each tap once"
        )
    return paths


def _resolve(model: nn.Module, tap: int | str, blocks: tuple[str, ...], name: str) -> str:
    span = f"flat block indices run from 0 to {len(blocks) - 1} ({blocks[-1]})" if blocks else ""
    if isinstance(tap, int) or tap.isdecimal():
        if 0 <= int(tap) < len(blocks):
            return blocks[int(tap)]
        raise BackboneError(
            f"no block {tap} in {name}", where="features.taps", fix=span or "give a module path"
        )
    paths = [path for path, _ in model.named_modules() if path]
    if tap in paths:
        return tap
    fix = suggestion(tap, paths, f"modules are {', '.join(_top(model))}")
    raise BackboneError(
        f"no module {tap!r} in {name}", where="features.taps", fix=f"{fix}; {span}".strip("; ")
    )


def flat_blocks(model: nn.Module) -> tuple[str, ...]:
    """Paths of the network's blocks in their order: what a flat block index counts.

    Stages are looked for by the names timm gives them (``blocks``, ``stages``, ``layer1`` ...), and opened
    down to the first module that is not a mere list of modules.
    """
    found = [
        block
        for name, child in model.named_children()
        if _CONTAINERS.fullmatch(name)
        for block in _opened(name, child)
    ]
    return tuple(found)


def _opened(path: str, module: nn.Module) -> Iterator[str]:
    children = list(module.named_children())
    if isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        inner = children
    elif isinstance(blocks := getattr(module, "blocks", None), nn.Sequential | nn.ModuleList):
        inner = [(f"blocks.{name}", child) for name, child in blocks.named_children()]
    elif children and all(re.fullmatch(r"b\d+", name) for name, _ in children):
        inner = children  # RegNet's stages
    else:
        yield path
        return
    for name, child in inner:
        yield from _opened(f"{path}.{name}", child)


def _top(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_children()]


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()
