"""Adam with gradient clipping and a learning-rate schedule, and its state as named tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nfbmr.config import StageConfig


def learning_rate(config: StageConfig, step: int, steps: int) -> float:
    r"""The rate of a step: constant, or :math:`\frac{lr}{2}(1 + \cos(\pi\,step/steps))`.

    A function of the step alone, so there is no state to resume.

    Example:
        >>> learning_rate(StageConfig(lr=1.0), 50, 100)
        0.5
    """
    if config.schedule == "constant":
        return config.lr
    return config.lr * 0.5 * (1.0 + math.cos(math.pi * step / steps))


class Optimiser:
    """Fused Adam (L2 weight decay, as the papers use it), the norm of all gradients limited first.

    Args:
        module: Its parameters are trained; names of stored tensors are theirs.
        config: Rate, decay, clipping and schedule.
        steps: Of the whole stage.
        rates: Parts of the module with the share of the learning rate that each is trained with; all of it
            with the whole rate by default.
    """

    STATE = ("step", "exp_avg", "exp_avg_sq")

    def __init__(
        self,
        module: nn.Module,
        config: StageConfig,
        steps: int,
        rates: Sequence[tuple[nn.Module, float]] | None = None,
    ) -> None:
        self.parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.config, self.steps = config, steps
        groups = [
            {"params": [p for p in part.parameters() if p.requires_grad], "share": share}
            for part, share in rates or ((module, 1.0),)
        ]
        self.adam = torch.optim.Adam(
            groups,
            lr=config.lr,
            betas=config.betas,
            eps=config.eps,
            weight_decay=config.weight_decay,
            fused=True,
        )

    def step(self, step: int) -> None:
        """Apply the gradients as step number ``step`` of the stage, and forget them."""
        for group in self.adam.param_groups:
            group["lr"] = group["share"] * learning_rate(self.config, step, self.steps)
        if self.config.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters.values(), self.config.clip)
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        """The state so far, e.g. ``exp_avg/blocks.0.weight``; empty before the first step."""
        return {
            f"{kind}/{name}": self.adam.state[p][kind]
            for name, p in self.parameters.items()
            for kind in self.STATE
            if kind in self.adam.state[p]
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what :meth:`tensors` gave."""
        for name, p in self.parameters.items():
            for kind in self.STATE:
                if f"{kind}/{name}" in tensors:
                    like = p if kind != "step" else p.new_zeros((), dtype=torch.float32)
                    # copy_ keeps the parameter's memory layout, which the fused kernel relies on
                    self.adam.state[p][kind] = torch.empty_like(like).copy_(tensors[f"{kind}/{name}"])
