"""How stages are trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from nfbmr.config.section import PositiveInt, Section

_Momentum = Annotated[float, Field(ge=0.0, lt=1.0)]


class StageConfig(Section):
    """How one stage is trained."""

    epochs: int = Field(20, ge=1)
    batch: PositiveInt = 8
    lr: float = Field(2e-4, gt=0, description="peak of the schedule")
    weight_decay: float = Field(1e-5, ge=0)
    betas: tuple[_Momentum, _Momentum] = Field((0.9, 0.999), description="of Adam")
    eps: float = Field(1e-8, gt=0, description="of Adam")
    clip: float | None = Field(1.0, gt=0, description="gradient norm limit (open in the paper; CS-Flow: 1)")
    schedule: Literal["constant", "cosine"] = Field(
        "cosine", description="of the learning rate (open in the paper)"
    )


class MappingStageConfig(StageConfig):
    """How the mapping is trained: a class of its own, so that its defaults hold whatever else is set."""

    epochs: int = Field(10, ge=1)
    lr: float = Field(3e-4, gt=0, description="peak of the schedule")


class DetailStageConfig(StageConfig):
    """How the flow of positions is trained: on positions drawn anew in each step."""

    epochs: int = Field(1, ge=1, description="at least; raised where these are fewer than `steps`")
    steps: PositiveInt = Field(150, description="at least so many steps, however few the images")
    batch: PositiveInt = 16
    lr: float = Field(2e-3, gt=0, description="peak of the schedule")
    positions: PositiveInt = Field(256, description="positions drawn of each image of a batch")


class TrainConfig(Section):
    """The stages, and the machine they run on. A method's own stages have a section each, by their names."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, StageConfig] = Field(init=False)

    flow: StageConfig = StageConfig()
    detail: DetailStageConfig = DetailStageConfig()
    mapping: MappingStageConfig = MappingStageConfig()
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="autocast; auto = bf16 where it is faster"
    )
    compile: bool = Field(False, description="torch.compile the stage's module")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, ...")
    checkpoint_every: PositiveInt = Field(5, description="epochs between checkpoints")
    validate_every: PositiveInt = Field(1, description="epochs between looks at the validation set")

    def stage(self, name: str) -> StageConfig:
        """How the stage of that name is trained; the general defaults where nothing is said of it."""
        section = getattr(self, name, None)
        return section if isinstance(section, StageConfig) else StageConfig()
