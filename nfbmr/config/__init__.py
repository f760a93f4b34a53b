"""The one configuration: typed, frozen, validated where it is made.

YAML files, ``--set flow.blocks=8``, sweeps and checkpoints all go through :class:`Config`. How layers of
settings are merged, and where each value came from, is :mod:`nfbmr.resolve`.
What the papers leave open is a field here with a named default; the field's description says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from nfbmr.addresses import store_address
from nfbmr.config.data import FEWEST_KNOWN, DataConfig, LayoutPatterns
from nfbmr.config.features import (
    VIEWS,
    DetailFeatureConfig,
    FeatureConfig,
    TargetConfig,
    View,
)
from nfbmr.config.judging import EvaluationConfig, ScoringConfig, SelectionConfig
from nfbmr.config.methods import (
    CFlowConfig,
    DetailConfig,
    FlowConfig,
    MappingConfig,
    PaDiMConfig,
    PatchCoreConfig,
    SPADEConfig,
)
from nfbmr.config.section import Fraction, Section, Taps
from nfbmr.config.training import DetailStageConfig, MappingStageConfig, StageConfig, TrainConfig

__all__ = [
    "FEWEST_KNOWN",
    "VIEWS",
    "CFlowConfig",
    "Config",
    "DataConfig",
    "DetailConfig",
    "DetailFeatureConfig",
    "DetailStageConfig",
    "EvaluationConfig",
    "FeatureConfig",
    "FlowConfig",
    "Fraction",
    "LayoutPatterns",
    "MappingConfig",
    "MappingStageConfig",
    "PaDiMConfig",
    "PatchCoreConfig",
    "SPADEConfig",
    "ScoringConfig",
    "Section",
    "SelectionConfig",
    "StageConfig",
    "Taps",
    "TargetConfig",
    "TrackingConfig",
    "TrainConfig",
    "View",
]


class TrackingConfig(Section):
    """Where runs are recorded."""

    kind: Literal["auto", "none", "folder", "mlflow"] = Field(
        "auto", description="auto = mlflow where installed"
    )
    uri: str | None = Field(
        None, description="else MLFLOW_TRACKING_URI, else SQLite in the working directory"
    )
    experiment: str = Field("nfbmr", min_length=1)
    run_name: str | None = None
    log_model: bool = Field(True, description="the finished model is recorded as well")
    backbone: Literal["included", "referenced"] = Field(
        "included",
        description="of the recorded model: the backbone's weights are in it, or only their hash is",
    )


class Config(Section):
    """A run, whole.

    Example:
        >>> Config().flow.blocks
        4
        >>> Config(flow=FlowConfig(blocks=8)).flow.hidden
        256
    """

    method: str = Field(
        "nf-bmr",
        description="a name in the table of methods (nfbmr methods), or module:attribute of one's own",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="of weights, batches and synthetic defects")
    output: Path = Field(Path("runs"), description="run folders are made here")
    store: Path = Field(
        Path(".nfbmr/store"),
        description="features, latents and flows shared by all runs: a folder, or s3://bucket/prefix",
    )
    data: DataConfig = DataConfig()
    features: FeatureConfig = FeatureConfig()
    flow: FlowConfig = FlowConfig()
    mapping: MappingConfig = MappingConfig()
    detail: DetailConfig = DetailConfig()
    cflow: CFlowConfig = CFlowConfig()
    padim: PaDiMConfig = PaDiMConfig()
    spade: SPADEConfig = SPADEConfig()
    patchcore: PatchCoreConfig = PatchCoreConfig()
    own: dict[str, bool | int | float | str] = Field(
        {}, description="settings of a method of one's own, as it names them"
    )
    train: TrainConfig = TrainConfig()
    scoring: ScoringConfig = ScoringConfig()
    selection: SelectionConfig = SelectionConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    tracking: TrackingConfig = TrackingConfig()

    @field_validator("store")
    @classmethod
    def _address(cls, value: Path) -> Path:
        return store_address(value)

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if self.scoring.weights not in ("auto", "paper") and sum(map(abs, self.scoring.weights)) == 0:  # type: ignore[arg-type]
            raise ValueError("scoring.weights are all zero: nothing would be scored")
        if self.selection.on == "test" and self.data.known_defects is not None:
            raise ValueError("selection.on=test chooses on the whole test set: leave data.known_defects out")
        return self
