"""A faster forward pass on the CPU without a compiler: convolution and activation in one kernel.

oneDNN, which torch's CPU convolutions run on, applies an activation while a result is still in the cache.
TensorFlow's padding, which EfficientNets ask for, is one pixel more on one side than on the other, and torch
copies the whole map to do it; here the kernel gets a row and a column of zeros instead, so that equal padding
gives the same numbers. The operators are torch's own but not public, so the result is compared with the plain
network before it is used.
"""

from __future__ import annotations

import copy
import logging
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, fx, nn

from nfbmr.data.pictures import Size, sides

log = logging.getLogger(__name__)

_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}


class Activation(NamedTuple):
    """An activation as oneDNN's operator names it."""

    name: str
    scalars: tuple[float, ...] = ()


NONE = Activation("none")
"""No activation: what a convolution gives is taken as it is."""
_ACTIVATIONS = {
    nn.ReLU: Activation("relu"),
    nn.ReLU6: Activation("hardtanh", (0.0, 6.0)),
    nn.SiLU: Activation("swish"),
    nn.Hardswish: Activation("hardswish"),
    nn.Identity: NONE,
}


class FusedConv(nn.Module):
    """A convolution with equal padding on both sides and the activation after it.

    Args:
        conv: The convolution; Conv2d or timm's Conv2dSame.
        activation: What follows it.
        extent: Height and width of its input.
    """

    def __init__(self, conv: nn.Conv2d, activation: Activation, extent: tuple[int, int]) -> None:
        super().__init__()
        weight, padding = conv.weight, [cast(int, conv.padding[0])] * 2
        if _pads_like_tensorflow(conv):
            stride, size = conv.stride[0], weight.shape[2]
            totals = [max((-(-side // stride) - 1) * stride + size - side, 0) for side in extent]
            padding = [-(-total // 2) for total in totals]
            high, wide = (total % 2 for total in totals)
            if high or wide:  # the pixel that is missing at the beginning meets a weight of zero
                weight = nn.functional.pad(weight, (wide, 0, high, 0))
        self.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last), requires_grad=False)
        self.bias = conv.bias
        self.geometry = (padding, list(conv.stride), list(conv.dilation), conv.groups)
        self.activation = activation

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The activation of the convolution of x."""
        name, scalars = self.activation
        call = torch.ops.mkldnn._convolution_pointwise
        return cast(Tensor, call(x_BCHW, self.weight, self.bias, *self.geometry, name, list(scalars), ""))


def fused(net: nn.Module, size: Size, dtype: torch.dtype) -> nn.Module:
    """The same network with fused convolutions, or `net` itself where that cannot be had.

    Args:
        net: On the CPU, in `dtype`; left as it is.
        size: Of the pictures that it will be given, and no others.
        dtype: float32 or bfloat16.
    """
    mkldnn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not isinstance(net, fx.GraphModule) or not mkldnn:
        return net
    try:
        faster = _fuse(net, sides(size), dtype)
        with torch.inference_mode(), torch.random.fork_rng(devices=[]):
            x = torch.randn(1, 3, *sides(size)).to(dtype).contiguous(memory_format=torch.channels_last)
            pairs = zip(faster(x), net(x), strict=True)
            most = _TOLERANCE[dtype]
            same = all(bool((a - b).abs().max() <= most * b.abs().max()) for a, b in pairs)
    except Exception as error:  # whatever an operator that is not public does in another version
        log.info("faster convolutions do not fit this network: it runs with torch's own")
        log.debug("why they are not: %s", error)
        return net
    if not same:
        log.warning("fused convolutions give other numbers on this machine; they are not used")
    return faster if same else net


def _fuse(net: fx.GraphModule, size: tuple[int, int], dtype: torch.dtype) -> fx.GraphModule:
    extents = _extents(net, size, dtype)
    # Weights are shared with `net`; its graph and its table of modules are not.
    net = fx.GraphModule(net, copy.deepcopy(net.graph))
    modules = dict(net.named_modules())
    targets = [node.target for node in net.graph.nodes if node.op == "call_module"]
    for node in list(net.graph.nodes):
        conv = modules.get(node.target) if node.op == "call_module" else None
        if conv is None or not _can_be_fused(conv) or targets.count(node.target) > 1:
            continue
        activation, follower = _activation_after(node, modules)
        if follower is not None:
            follower.replace_all_uses_with(node)
            net.graph.erase_node(follower)
        parent, _, name = node.target.rpartition(".")
        setattr(net.get_submodule(parent), name, FusedConv(conv, activation, extents[node.name]))
    net.delete_all_unused_submodules()
    net.recompile()
    return net


class _Extents(fx.Interpreter):
    """Runs a graph and remembers the height and width of every node's first input.

    Torch's own ShapeProp prints a traceback where it fails, whoever catches the error.
    """

    def __init__(self, net: fx.GraphModule) -> None:
        super().__init__(net)
        self.extents: dict[str, tuple[int, int]] = {}

    def run_node(self, n: fx.Node) -> Any:
        """The node's output."""
        before = self.env.get(n.args[0]) if n.args and isinstance(n.args[0], fx.Node) else None
        if isinstance(before, Tensor) and before.dim() == 4:
            self.extents[n.name] = before.shape[2], before.shape[3]
        return super().run_node(n)


def _extents(net: fx.GraphModule, size: tuple[int, int], dtype: torch.dtype) -> dict[str, tuple[int, int]]:
    """Height and width of every node's first input, without computing anything."""
    ghost = _Extents(copy.deepcopy(net).to("meta"))
    ghost.run(torch.empty(1, 3, *size, device="meta", dtype=dtype))
    return ghost.extents


def _can_be_fused(conv: nn.Module) -> bool:
    from timm.layers.conv2d_same import Conv2dSame

    if type(conv) is not nn.Conv2d and type(conv) is not Conv2dSame:  # exactly: a subclass may do more
        return False
    sides = [conv.kernel_size, conv.stride, conv.dilation]
    if _pads_like_tensorflow(conv):
        return all(high == wide for high, wide in sides) and conv.dilation == (1, 1)
    if isinstance(conv.padding, str):
        return False
    return all(high == wide for high, wide in [*sides, conv.padding]) and conv.padding_mode == "zeros"


def _pads_like_tensorflow(conv: nn.Module) -> bool:
    from timm.layers.conv2d_same import Conv2dSame

    return type(conv) is Conv2dSame


def _activation_after(node: fx.Node, modules: dict[str, Any]) -> tuple[Activation, fx.Node | None]:
    """The activation that alone reads a node, and its node; none where something else follows."""
    followers = list(node.users)
    if len(followers) != 1 or followers[0].op != "call_module":
        return NONE, None
    leaves = [m for m in modules[cast(str, followers[0].target)].modules() if type(m) is not nn.Sequential]
    working = [leaf for leaf in leaves if type(leaf) is not nn.Identity]
    if len(working) > 1 or any(type(leaf) not in _ACTIVATIONS for leaf in leaves):
        return NONE, None
    return _ACTIVATIONS[type(working[0])] if working else NONE, followers[0]
