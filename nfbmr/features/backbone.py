"""A frozen timm network, cut after its last tap.

A tap names where features are read (:mod:`nfbmr.features.taps`). Where a module's output is a map, that is
read: the network is traced no further than the last tap, so nothing after it runs, and each batch norm is
folded into the convolution before it. Where it is tokens, timm's intermediate features are read
(:mod:`nfbmr.features.maps`), and the layers after the last one are taken out.

Legend: x_B3SS normalised pictures, y_BCHW features; B batch, S input pixels, C channels, H W feature map.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nfbmr.config import FeatureConfig, Taps
from nfbmr.data.digests import State, state_of
from nfbmr.data.pictures import Size, sides
from nfbmr.disk_cache import cached, forget
from nfbmr.errors import BackboneError
from nfbmr.features.graph import Hooked, cut
from nfbmr.features.inputs import cannot_work, input_rule, set_size, size_to_set
from nfbmr.features.maps import FAILURES, Intermediates, Layout, Reading, reading_of, tensors_of
from nfbmr.features.models import blank_model, new_model, software
from nfbmr.features.table import Shape
from nfbmr.features.taps import resolve_taps
from nfbmr.features.weights import Weights, resolve_weights, weights_state

_KIND = "backbones"
_KEPT = 2
"""Networks that a process keeps: a method reads two at most."""
_UNIT = 32
"""Pixels: the stride of the deepest taps of usual networks."""


@dataclass(frozen=True)
class BackboneInfo:
    """What stored features are told apart by, and their shapes: all that reading them takes of a network.

    Attributes:
        name: timm's name.
        taps: As :attr:`Backbone.taps`; so are the others.
        weights_digest: Fingerprint of the weights.
        mean: Channel means of pictures.
        std: Their standard deviations.
        folded: Batch norms folded into convolutions.
        corrected: Taps that were read wrongly once, in the order of the taps.
        shapes: (C, H, W) of each tap's map, in the order of the taps.
    """

    name: str
    taps: tuple[str, ...]
    weights_digest: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    folded: bool
    corrected: tuple[str, ...]
    shapes: tuple[Shape, ...]

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> BackboneInfo:
        """What :func:`dataclasses.asdict` made, through JSON."""
        info = cls(
            name=str(kept["name"]),
            taps=tuple(map(str, kept["taps"])),
            weights_digest=str(kept["weights_digest"]),
            mean=tuple(map(float, kept["mean"])),
            std=tuple(map(float, kept["std"])),
            folded=bool(kept["folded"]),
            corrected=tuple(map(str, kept["corrected"])),
            shapes=tuple((int(c), int(h), int(w)) for c, h, w in kept["shapes"]),
        )
        if not info.taps or len(info.taps) != len(info.shapes):
            raise ValueError("taps without shapes")
        return info


class Backbone(nn.Module):
    """Reads the features of one or several taps in a single pass.

    Attributes:
        name: timm's name.
        taps: Resolved names, in the order they were asked for.
        layouts: Of each tap's own output, before :meth:`forward` brings it to (B, C, H, W).
        corrected: Taps whose axes are others than timm's word for the whole network: read wrongly once.
        mean: Per-channel mean that a picture is normalised with (RGB, of values in 0..1).
        std: Its standard deviation.
        weights: Where the weights came from.
        folded: Batch norms folded into convolutions.
        traced: Whether the network could be traced; else it runs unchanged, broken off after the last tap.
    """

    def __init__(
        self,
        model: nn.Module,
        name: str,
        taps: Sequence[int | str],
        weights: Weights,
        reading: Reading | None = None,
    ) -> None:
        super().__init__()
        from timm.data.config import resolve_model_data_config

        normal: dict[str, Any] = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
        self.name = name
        self.taps = resolve_taps(model, taps, name)
        reading = reading or reading_of(model, self.taps, name)
        self.layouts = reading.layouts_of(self.taps)
        usual = getattr(model, "output_fmt", "NCHW")
        self.corrected = frozenset(
            tap for tap, layout in zip(self.taps, reading.layouts, strict=False) if layout != usual
        )
        self.mean: tuple[float, ...] = tuple(float(v) for v in normal["mean"])
        self.std: tuple[float, ...] = tuple(float(v) for v in normal["std"])
        self.weights = weights
        self._shapes_by_size: dict[tuple[int, int], dict[str, Shape]] = {}
        self.net, self.folded, self.traced = (
            cut(model, self.taps)
            if reading.layouts
            else (Intermediates(model, reading, prune=True), False, False)
        )
        self.net.eval().requires_grad_(False)
        for parameter in self.net.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    @property
    def weights_digest(self) -> str:
        """Fingerprint of the weights."""
        return self.weights.digest

    def info(self, size: Size) -> BackboneInfo:
        """What stored features of pictures of this size are told apart by.

        Raises:
            BackboneError: The backbone cannot work at this size.
        """
        shapes = self.shapes(size)
        return BackboneInfo(
            name=self.name,
            taps=self.taps,
            weights_digest=self.weights_digest,
            mean=self.mean,
            std=self.std,
            folded=self.folded,
            corrected=tuple(tap for tap in self.taps if tap in self.corrected),
            shapes=tuple(shapes[tap] for tap in self.taps),
        )

    def forward(self, x_B3SS: Tensor) -> tuple[Tensor, ...]:
        """Features of every tap, in the order of :attr:`taps`, each y_BCHW.

        Raises:
            BackboneError: A tap gives something other than a map.
        """
        outputs = zip(self.taps, self.net(x_B3SS), self.layouts, strict=True)
        return tuple(_map(self.name, tap, output, layout) for tap, output, layout in outputs)

    def shapes(self, size: Size) -> dict[str, Shape]:
        """(C, H, W) of every tap for pictures of this size; nothing is computed.

        Raises:
            BackboneError: The backbone cannot work at this size.
        """
        size = sides(size)
        if size not in self._shapes_by_size:
            self._shapes_by_size[size] = self._shapes(size)
        return dict(self._shapes_by_size[size])

    def _shapes(self, size: tuple[int, int]) -> dict[str, Shape]:
        ghosts = {name: tensor.to("meta") for name, tensor in tensors_of(self)}
        try:
            with torch.inference_mode():
                x_13SS = torch.empty(1, 3, *size, device="meta")
                maps: tuple[Tensor, ...] = torch.func.functional_call(self, ghosts, (x_13SS,))
        except BackboneError:
            raise
        except FAILURES as error:
            raise cannot_work(self.name, size, error, _nearest_sizes(self.name, self.taps, size)) from error
        return {tap: _shape(y) for tap, y in zip(self.taps, maps, strict=True)}


@cache
def shapes_without_weights(backbone: str, taps: Taps, size: Size) -> Mapping[str, Shape]:
    """What :meth:`Backbone.shapes` gives, for less: no weights are looked for, and nothing is traced.

    Raises:
        BackboneError: There is no such backbone or tap, or it cannot work at this size.

    Example:
        >>> dict(shapes_without_weights("test_efficientnet", (2,), 64))
        {'blocks.2.0': (32, 8, 8)}
    """
    size = sides(size)
    return cached(
        _KIND,
        {"shapes": backbone, "taps": list(taps), "size": size, **software()},
        lambda: _shapes_without_weights(backbone, taps, size),
        dump=lambda shapes: list(shapes.items()),
        load=lambda kept: {str(tap): (int(c), int(h), int(w)) for tap, (c, h, w) in kept},
    )


def _shapes_without_weights(backbone: str, taps: Taps, size: tuple[int, int]) -> dict[str, Shape]:
    try:
        return _ghost_shapes(backbone, taps, size)
    except BackboneError:
        raise
    except FAILURES as error:
        raise cannot_work(backbone, size, error, _nearest_sizes(backbone, taps, size)) from error


def _ghost_shapes(backbone: str, taps: Taps, size: tuple[int, int]) -> dict[str, Shape]:
    """Shapes of the taps of a network without numbers, set to a size; errors are torch's own."""
    model = blank_model(backbone)
    paths = resolve_taps(model, taps, backbone)
    reading = reading_of(model, paths, backbone)
    model = set_size(model, size if input_rule(backbone).has_to_be_set(size) else None)
    net = Hooked(model, paths) if reading.layouts else Intermediates(model, reading)
    layouts = reading.layouts_of(paths)
    with torch.inference_mode():
        outputs = zip(paths, net(torch.empty(1, 3, *size, device="meta")), layouts, strict=True)
        return {tap: _shape(_map(backbone, tap, y, layout)) for tap, y, layout in outputs}


def _nearest_sizes(backbone: str, taps: Taps, size: tuple[int, int], most: int = 2) -> tuple[int, ...]:
    """Sides of squares near a size that a network can work on."""
    rule = input_rule(backbone)
    side, unit = math.sqrt(math.prod(size)), math.lcm(_UNIT, rule.patch)
    near = {*rule.native, *(unit * n for n in range(int(side / unit), int(side / unit) + 3) if n)}
    works: list[int] = []
    for candidate in sorted(near, key=lambda candidate_side: abs(candidate_side - side)):
        try:
            _ghost_shapes(backbone, taps, (candidate, candidate))
        except (BackboneError, *FAILURES):
            continue
        works.append(candidate)
        if len(works) == most:
            break
    return tuple(works)


def _shape(y_BCHW: Tensor) -> Shape:
    return y_BCHW.shape[1], y_BCHW.shape[2], y_BCHW.shape[3]


def _map(name: str, tap: str, y: object, layout: Layout) -> Tensor:
    """A tap's output as (B, C, H, W)."""
    if not isinstance(y, Tensor) or y.ndim != 4:
        shape = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
        raise BackboneError(
            f"the tap {tap!r} gives no feature map (B, C, H, W) but {shape}",
            where=name,
            fix=f"tap another place: nfbmr backbones {name}",
        )
    return y.permute(0, 3, 1, 2) if layout == "NHWC" else y


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
    return _loaded(config.backbone, config.weights, config.taps, size_to_set(config))


def backbone_info(config: FeatureConfig) -> BackboneInfo:
    """What :meth:`Backbone.info` says of the backbone a configuration asks for.

    Kept in the machine's cache, so that features that are all stored are read without loading the network.
    What is kept counts while the weights' file has the same size and time, and the packages and this code are
    the same. Weights from timm's hub are always loaded: whether they are the same, the hub alone knows.

    Raises:
        BackboneError: There is no such backbone or tap.
        WeightsError: Its weights cannot be had, or do not fit.
    """
    about = _decided_by(config)
    if about["weights"] is None:
        return shared_backbone(config).info(config.shape)
    return cached(
        _KIND,
        about,
        lambda: shared_backbone(config).info(config.shape),
        dump=asdict,
        load=BackboneInfo.from_json,
    )


def _decided_by(config: FeatureConfig) -> dict[str, Any]:
    """All that decides what :func:`backbone_info` says."""
    return {
        "backbone": config.backbone,
        "weights": weights_state(config.backbone, config.weights),
        "taps": list(config.taps),
        "set_to": size_to_set(config),
        "size": config.shape,
        **software(),
    }


def same_backbone(info: BackboneInfo, config: FeatureConfig) -> Backbone:
    """:func:`shared_backbone`, found to be the one that was said of it.

    Raises:
        BackboneError: It is another: a file of weights was changed and kept its size and time.
    """
    backbone = shared_backbone(config)
    if backbone.info(config.shape) != info:
        forget(_KIND, _decided_by(config))
        raise BackboneError(
            "the network is not the one that this machine's cache knows: its weights were changed without a "
            "change of their file's size and time",
            where=config.backbone,
            fix="run the same command again: what was kept of it is forgotten",
        )
    return backbone


def shared_backbone(config: FeatureConfig) -> Backbone:
    """:func:`load_backbone`, once for all who ask in this process; not to be changed.

    A run asks for the same network at each size, and so does the next trial. A file of weights that has been
    written anew is read anew.
    """
    file = Path(config.weights)
    written = state_of(file.stat()) if file.is_file() else None
    return _kept(config.backbone, config.weights, config.taps, written, size_to_set(config))


@lru_cache(maxsize=_KEPT)
def _kept(
    backbone: str, weights: str, taps: Taps, written: State | None, size: tuple[int, int] | None
) -> Backbone:
    return _loaded(backbone, weights, taps, size)


def _loaded(backbone: str, weights: str, taps: Taps, size: tuple[int, int] | None) -> Backbone:
    model = new_model(backbone)
    # Before weights are fetched for nothing, and at the size that the network was made for.
    reading = reading_of(model, resolve_taps(model, taps, backbone), backbone)
    loaded = resolve_weights(backbone, weights, model=model)
    model.load_state_dict(dict(loaded.state_dict), strict=False)
    try:
        model = set_size(model, size)
    except FAILURES as error:
        works = () if size is None else _nearest_sizes(backbone, taps, size)
        raise cannot_work(backbone, size or (0, 0), error, works) from error
    return Backbone(model, backbone, taps, loaded, reading)
