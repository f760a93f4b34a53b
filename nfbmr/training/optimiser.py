"""Adam with gradient clipping and a learning-rate schedule, and its state as named tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

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

    The function behind :class:`torch.optim.Adam`, to the same bits: the class loads the compiler when it is
    made, some three seconds of every process, for nothing.

    Args:
        module: Its parameters are trained; names of stored tensors are theirs.
        config: Rate, decay, clipping and schedule.
        steps: Steps of the whole stage.
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
        self._groups = [
            ([p for p in part.parameters() if p.requires_grad], share)
            for part, share in rates or ((module, 1.0),)
        ]
        self._state: dict[Tensor, dict[str, Tensor]] = {}

    @torch.no_grad()
    def step(self, step: int) -> None:
        """Apply the gradients as step number ``step`` of the stage, and forget them."""
        if self.config.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters.values(), self.config.clip)
        for parameters, share in self._groups:
            self._apply(parameters, share * learning_rate(self.config, step, self.steps))
            for p in parameters:
                p.grad = None

    def _apply(self, parameters: Sequence[Tensor], rate: float) -> None:
        pairs = [(p, p.grad) for p in parameters if p.grad is not None]
        states = [self._state.setdefault(p, {}) for p, _ in pairs]
        for (p, _), state in zip(pairs, states, strict=True):
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32, device=p.device)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
        if not pairs:
            return
        beta1, beta2 = self.config.betas
        adam(
            [p for p, _ in pairs],
            [gradient for _, gradient in pairs],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=rate,
            weight_decay=self.config.weight_decay,
            eps=self.config.eps,
            maximize=False,
        )

    def tensors(self) -> dict[str, Tensor]:
        """The state so far, e.g. ``exp_avg/blocks.0.weight``; empty before the first step."""
        return {
            f"{kind}/{name}": self._state[p][kind]
            for name, p in self.parameters.items()
            for kind in self.STATE
            if kind in self._state.get(p, {})
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what :meth:`tensors` gave."""
        for name, p in self.parameters.items():
            for kind in self.STATE:
                if f"{kind}/{name}" in tensors:
                    like = p if kind != "step" else p.new_zeros((), dtype=torch.float32)
                    # copy_ keeps the parameter's memory layout, which the fused kernel relies on
                    self._state.setdefault(p, {})[kind] = torch.empty_like(like).copy_(
                        tensors[f"{kind}/{name}"]
                    )
