"""Both stages on a handful of random features, small enough to train in a second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from nfbmr.config import FlowConfig, MappingConfig, StageConfig, TrainConfig
from nfbmr.features.table import TensorTable
from nfbmr.flows.flow import Flow
from nfbmr.mapping.bmr import BMR
from nfbmr.stopping import StopRequest
from nfbmr.training.batches import Batches
from nfbmr.training.loop import StageResult, train_stage
from nfbmr.training.stages import FlowStage, MappingStage, Stage

SHAPE = (5, 4, 4)
IMAGES, VIEWS = 11, 2


@dataclass
class Trial:
    """A stage and all that :func:`train_stage` needs, any of which a test may change."""

    stage: Stage
    batches: Batches
    config: StageConfig
    train: TrainConfig
    folder: Path
    seed: int = 0

    def run(self, **settings: Any) -> StageResult:
        """Train the stage."""
        return train_stage(
            self.stage, self.batches, self.config, self.train, seed=self.seed, folder=self.folder, **settings
        )

    def weights(self) -> dict[str, torch.Tensor]:
        """A copy of the module's state."""
        return {key: value.clone() for key, value in self.stage.module.state_dict().items()}


class StopAfter(StopRequest):
    """Asks for a stop once it has been looked at a number of times, that is after so many steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    @property
    def requested(self) -> bool:
        """Counts the looks."""
        self.left -= 1
        return self.left <= 0


def make(kind: str, folder: Path, **settings: Any) -> Trial:
    """A fresh stage with weights that depend on nothing but the kind."""
    generator = torch.Generator().manual_seed(0)
    rows = IMAGES * VIEWS
    y = TensorTable(torch.randn(rows, *SHAPE, generator=generator).half() * 3 + 1)
    z = TensorTable(torch.randn(rows, *SHAPE, generator=generator).half())
    rows_NV = torch.arange(rows).view(IMAGES, VIEWS)
    config = StageConfig(**({"epochs": 4, "batch": 4, "lr": 1e-3} | settings))
    flow = Flow(SHAPE, FlowConfig(blocks=2, hidden=6), seed=0)
    flow.standardise.fit(y)
    if kind == "flow":
        stage: Stage = FlowStage(flow)
        batches = Batches((y,), rows_NV, config.batch, seed=0)
    else:
        stage = MappingStage(BMR(SHAPE[0], MappingConfig(residual_blocks=1, latent=6)), flow.standardise)
        batches = Batches((y, z), rows_NV, config.batch, seed=0)
    train = TrainConfig(precision="fp32", checkpoint_every=1, validate_every=1, device="cpu")
    return Trial(stage, batches, config, train, folder)


@pytest.fixture
def trial(tmp_path: Path) -> Callable[..., Trial]:
    """Makes a trial of a kind, ``flow`` or ``mapping``; keyword arguments are stage settings."""
    return lambda kind="flow", folder="run", **settings: make(kind, tmp_path / folder, **settings)


@pytest.fixture
def stop_after() -> Callable[[int], StopRequest]:
    """Makes a stop request that comes after so many steps."""
    return StopAfter
