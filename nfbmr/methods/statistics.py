"""What methods without training share: a stage that is measured, not trained, and their view of several taps.

Shapes: B batch, C channels, H W a map, N vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from tqdm import tqdm

from nfbmr.config import Section
from nfbmr.errors import Interrupted
from nfbmr.features.table import Tensors, ViewedFeatures
from nfbmr.progress import ticking
from nfbmr.stopping import StopRequest
from nfbmr.training.stages import Stage


class ClosedFormStage(Stage):
    """A stage whose numbers are measured on the training features in one go.

    Args:
        module: Holds the numbers as buffers.
        section: Section of the configuration, which decides them.
    """

    name = "statistics"
    trained = False
    full_precision = True

    def __init__(self, module: nn.Module, section: Section) -> None:
        self.module = module
        self._section = section

    @property
    def settings(self) -> Mapping[str, Any]:
        """The method's section."""
        return {"kind": type(self).__name__, "settings": self._section.model_dump(mode="json")}


class MemoryBank(nn.Module):
    """Named tensors whose sizes are known once they are measured; saved and loaded as buffers.

    Example:
        >>> bank = MemoryBank(patches=torch.zeros(0, 4))
        >>> bank.load_state_dict({"patches": torch.ones(3, 4)})
        <All keys matched successfully>
        >>> bank.patches.shape
        torch.Size([3, 4])
    """

    def __init__(self, **tensors: Tensor) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)
        self._squares: dict[str, tuple[Tensor, Tensor]] = {}

    def tensor(self, name: str) -> Tensor:
        """One of them."""
        return self.get_buffer(name)

    def squares(self, name: str) -> Tensor:
        """Squared norms of one's rows, (K,): computed once, until :meth:`put`, loading or another device."""
        tensor_KC = self.tensor(name)
        if torch.compiler.is_exporting():
            return tensor_KC.square().sum(1)
        known = self._squares.get(name)
        if known is None or known[0] is not tensor_KC:
            known = self._squares[name] = (tensor_KC, tensor_KC.square().sum(1))
        return known[1]

    def put(self, **tensors: Tensor) -> None:
        """Replace tensors, whatever their sizes were, on the device that they were on.

        Rows lie as in a loaded model, so that both give the same bits as quickly: a product with PaDiM's
        matrices as LAPACK leaves them, by columns, takes four times as long.
        """
        for name, tensor in tensors.items():
            setattr(self, name, tensor.to(self.tensor(name).device).contiguous())

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *rest: Any) -> None:
        for name, _ in list(self.named_buffers(recurse=False)):
            if f"{prefix}{name}" in state_dict:
                setattr(
                    self,
                    name,
                    torch.empty_like(state_dict[f"{prefix}{name}"], device=getattr(self, name).device),
                )
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self._squares.clear()


def batches_of(
    seen: ViewedFeatures, stop: StopRequest | None, *, what: str, size: int = 32
) -> Iterator[Tensors]:
    """All rows, views included, a few at a time as float32, with a progress bar.

    Raises:
        Interrupted: A stop was asked for.
    """
    rows, size = seen.rows_NV.flatten(), seen.features.at_once(size)
    bar = tqdm(range(0, len(rows), size), desc=what, disable=None, leave=False)
    with ticking(bar):
        for start in bar:
            raise_if_stopped(stop)
            yield tuple(y.float() for y in seen.features.gather(rows[start : start + size]))


def raise_if_stopped(stop: StopRequest | None) -> None:
    """Say that nothing but the measuring itself is lost."""
    if stop is not None and stop.requested:
        raise Interrupted(
            "stopped while the training features were measured",
            fix="run the same command again, or nfbmr train --resume RUN: features are kept",
        )


def at_finest(y: Tensors, mode: str = "nearest") -> Tensor:
    """Maps of several taps as one, (B, sum C, H, W): each brought to the finest height and width."""
    finest = max((y_BCHW.shape[2:] for y_BCHW in y), key=lambda size: size[0] * size[1])
    options = {} if mode == "nearest" else {"align_corners": False}
    return torch.cat(
        [
            y_BCHW if y_BCHW.shape[2:] == finest else interpolate(y_BCHW, size=finest, mode=mode, **options)
            for y_BCHW in y
        ],
        dim=1,
    )


def distances(a_QC: Tensor, b_KC: Tensor) -> Tensor:
    r"""Euclidean distances of each vector to each other one, (..., Q, K).

    :func:`torch.cdist`; in an exported graph, which has no such operator, the root of
    :math:`\|a\|^2 - 2ab + \|b\|^2`.

    Example:
        >>> distances(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
        tensor([[5.]])
    """
    if not torch.compiler.is_exporting():
        return torch.cdist(a_QC, b_KC)
    squares_QK = a_QC.square().sum(-1, keepdim=True) + b_KC.square().sum(-1).unsqueeze(-2)
    return (squares_QK - 2.0 * a_QC @ b_KC.transpose(-1, -2)).clamp(min=0.0).sqrt()
