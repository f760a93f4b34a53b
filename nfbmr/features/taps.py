"""Names of a network's taps: where its features can be read.

A tap is a flat block index (0-based over the network's blocks: the MBConv blocks of an EfficientNet, the
residual blocks of a ResNet), a module path such as ``"blocks.5"`` or ``"layer3"``, or a name of timm's own
``feature_info``, which is the path of a module in most networks and a name alone in a few (``"block.2"`` of
mvitv2). ``"norm"`` of a vision transformer is its last block behind the final norm.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from torch import nn

from nfbmr.errors import BackboneError
from nfbmr.fields import suggestion

NORM = "norm"
"""The module that vision transformers norm their last tokens with."""

_CONTAINERS = re.compile(r"blocks|stages|layers|features|layer\d+|s\d+|stage\d+|trunk")


def resolve_taps(model: nn.Module, taps: Sequence[int | str], name: str) -> tuple[str, ...]:
    """Names of taps given as flat block indices or as names.

    Raises:
        BackboneError: A tap does not exist; names the nearest ones, or the range of indices. Or two taps are
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
    named = feature_names(model)
    if tap in paths or (tap and tap in named):
        return tap
    listed = ", ".join(list(filter(None, named)) or [child for child, _ in model.named_children()])
    fix = suggestion(
        tap, [*filter(None, named), *paths], f"taps are {listed}" if named else f"modules are {listed}"
    )
    raise BackboneError(
        f"no module {tap!r} in {name}", where="features.taps", fix=f"{fix}; {span}".strip("; ")
    )


def feature_names(model: nn.Module) -> tuple[str, ...]:
    """Timm's names of what ``forward_intermediates`` gives, in its order; none where they are not unique."""
    named = tuple(str(feature["module"]) for feature in feature_info(model))
    return named if len(set(named)) == len(named) else ()


def feature_info(model: nn.Module) -> list[dict[str, object]]:
    """Timm's ``feature_info`` of a network: module, channels and reduction of each of its features."""
    info = getattr(model, "feature_info", ())
    return [dict(feature) for feature in getattr(info, "info", info)]


def flat_blocks(model: nn.Module) -> tuple[str, ...]:
    """Paths of the network's blocks in their order: what a flat block index counts.

    Stages are looked for by the names timm gives them (``blocks``, ``stages``, ``layer1`` ...), and opened
    down to the first module that is not a mere list of modules.
    """
    blocks = [
        block
        for name, child in model.named_children()
        if _CONTAINERS.fullmatch(name)
        for block in _opened(name, child)
    ]
    return tuple(blocks)


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
