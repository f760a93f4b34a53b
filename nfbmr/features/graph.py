"""Cutting a network after its last tap and folding its batch norms, on the torch.fx graph.

Where a network cannot be traced, hooks read the taps and the pass is broken off after the last one: slower by
the batch norms, the same numbers up to rounding.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, cast

from torch import Tensor, fx, nn

log = logging.getLogger(__name__)

_TRACING = threading.Lock()
"""torch.fx replaces methods of every module while it traces; two at once would put each other's back."""
_HOOKED = threading.Lock()
"""A module's hooks are called for every thread that runs it: two passes would read each other's maps."""


def cut(model: nn.Module, taps: Sequence[str]) -> tuple[nn.Module, bool, bool]:
    """A module giving the tuple of the taps' outputs, and running nothing after the last of them.

    Args:
        model: In evaluation mode; its weights are shared, not copied, except where a batch norm is folded.
        taps: Distinct module paths.

    Returns:
        The module, whether batch norms were folded, whether it was traced.
    """
    try:
        graph = _trace(model, taps)
        folded = fold_batch_norms(graph)
    except Exception as error:  # tracing runs the model's own code: anything may come out
        log.info("%s cannot be traced: its taps are read by hooks, a little slower", type(model).__name__)
        log.debug("why it cannot be traced: %s", error)
        return Hooked(model, taps), False, False
    graph.delete_all_unused_submodules()
    return graph, folded > 0, True


class _Reached(Exception):
    """The last tap's output is known."""


class _Tracer(fx.Tracer):
    """Records the node of every tap's output and stops at the last.

    While it traces, torch.fx brings it the calls of all modules of the process. Those of other threads, such
    as of a model that answers while the next one is loaded, are none of its own and go on as they are.
    """

    def __init__(self, taps: Sequence[str] = ()) -> None:  # none where a graph is unpickled
        import timm.layers

        registry: Any = timm.layers  # its types do not know what it exports
        super().__init__(autowrap_functions=tuple(registry.get_notrace_functions()))
        self.leaves = (nn.Conv2d, nn.BatchNorm2d, *registry.get_notrace_modules())
        self.waiting = set(taps)
        self.found: dict[str, fx.Node] = {}
        self.thread = threading.get_ident()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, self.leaves) or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if threading.get_ident() != self.thread:
            return forward(*args, **kwargs)
        out = super().call_module(m, forward, args, kwargs)
        path = self.path_of_module(m)
        if path in self.waiting:
            self.waiting.discard(path)
            # Later code may work in place on what was tapped.
            kept = out.clone() if self.waiting else out
            self.found[path] = cast(fx.Proxy, kept).node
            if not self.waiting:
                raise _Reached
        return out

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, fx.Proxy]) -> Any:
        if threading.get_ident() != self.thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)


def _trace(model: nn.Module, taps: Sequence[str]) -> fx.GraphModule:
    tracer = _Tracer(taps)
    try:
        with _TRACING:
            tracer.trace(model)
    except _Reached:
        pass
    else:
        raise RuntimeError(f"the pass does not come by {sorted(tracer.waiting)}")
    graph = tracer.graph
    graph.output(tuple(tracer.found[tap] for tap in taps))
    graph.lint()
    return fx.GraphModule(tracer.root, graph)


def fold_batch_norms(net: fx.GraphModule) -> int:
    r"""Fold each batch norm into the convolution it follows, in place.

    With running mean :math:`\mu`, variance :math:`v` and affine :math:`\gamma, \beta`:
    :math:`W' = W \gamma / \sqrt{v + \epsilon}`, :math:`b' = \beta + (b - \mu) \gamma / \sqrt{v + \epsilon}`.

    Returns:
        How many were folded.
    """
    from timm.layers.conv2d_same import Conv2dSame
    from timm.layers.norm_act import BatchNormAct2d
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    modules = dict(net.named_modules())
    folded = 0
    for node in list(net.graph.nodes):
        before = node.args[0] if node.args else None
        if node.op != "call_module" or not isinstance(before, fx.Node) or before.op != "call_module":
            continue
        conv, norm = modules[cast(str, before.target)], modules[node.target]
        # Exact types: a subclass may do something else with its weights (weight standardisation).
        if type(conv) not in (nn.Conv2d, Conv2dSame) or type(norm) not in (nn.BatchNorm2d, BatchNormAct2d):
            continue
        if len(before.users) > 1 or norm.running_mean is None or _calls(net, before.target, node.target) > 2:
            continue
        _replace(net, cast(str, before.target), fuse_conv_bn_eval(conv, norm))
        if type(norm) is BatchNormAct2d:
            _replace(net, node.target, nn.Sequential(norm.drop, norm.act))
        else:
            node.replace_all_uses_with(before)
            net.graph.erase_node(node)
        folded += 1
    net.graph.lint()
    net.recompile()
    return folded


def _calls(net: fx.GraphModule, *targets: Any) -> int:
    return sum(node.op == "call_module" and node.target in targets for node in net.graph.nodes)


def _replace(net: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(net.get_submodule(parent), name, module)


class Hooked(nn.Module):
    """The taps' outputs by hooks, the pass broken off after the last."""

    def __init__(self, model: nn.Module, taps: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.paths = tuple(taps)

    def forward(self, x_B3SS: Tensor) -> tuple[Any, ...]:
        """The taps' outputs, in their order."""
        outputs: dict[str, Any] = {}

        def keep(path: str) -> Callable[..., None]:
            def hook(_module: nn.Module, _args: Any, out: Any) -> None:
                outputs[path] = out
                if len(outputs) == len(self.paths):
                    raise _Reached
                outputs[path] = out.clone() if isinstance(out, Tensor) else out

            return hook

        with _HOOKED:
            handles = [self.model.get_submodule(p).register_forward_hook(keep(p)) for p in self.paths]
            try:
                self.model(x_B3SS)
            except _Reached:
                pass
            finally:
                for handle in handles:
                    handle.remove()
        missing = [p for p in self.paths if p not in outputs]
        if missing:
            raise RuntimeError(f"the pass does not come by {missing}")
        return tuple(outputs[p] for p in self.paths)
