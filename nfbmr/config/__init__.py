"""The one configuration: typed, frozen, validated where it is made.

YAML files, ``--set flow.blocks=8``, sweeps and checkpoints all go through :class:`Config`. How layers of
settings are merged, and where each value came from, is :mod:`nfbmr.resolve`.
What the papers leave open is a field here with a named default; the field's description says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, PlainValidator, field_validator, model_validator

from nfbmr.addresses import store_address
from nfbmr.config.data import FEWEST_KNOWN, DataConfig, LayoutPatterns
from nfbmr.config.features import (
    VIEWS,
    DetailFeatureConfig,
    FeatureConfig,
    Symmetry,
    TargetConfig,
    View,
)
from nfbmr.config.judging import EvaluationConfig, ScoringConfig, SelectionConfig
from nfbmr.config.method_sections import MethodConfig, checked_section, is_ours, with_method_sections
from nfbmr.config.networks import DetailConfig, FlowConfig, MappingConfig
from nfbmr.config.section import Fraction, PositiveInt, Section, Taps, odd_side
from nfbmr.config.training import DetailStageConfig, MappingStageConfig, StageConfig, TrainConfig

__all__ = [
    "FEWEST_KNOWN",
    "VIEWS",
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
    "MethodConfig",
    "PositiveInt",
    "ScoringConfig",
    "Section",
    "SelectionConfig",
    "StageConfig",
    "Symmetry",
    "Taps",
    "TargetConfig",
    "TrackingConfig",
    "TrainConfig",
    "View",
    "odd_side",
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
    """A run, whole: these sections, and those that methods bring (:class:`MethodConfig`).

    Example:
        >>> Config().flow.blocks
        4
        >>> Config(flow=FlowConfig(blocks=8)).flow.hidden
        256
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[Any, PlainValidator(checked_section)]] = Field(init=False)

    method: str = Field(
        "nf-bmr",
        description="a name in the table of methods (nfbmr methods), or module:attribute of one's own",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="of weights, batches and synthetic defects")
    output: Path = Field(Path("runs"), description="run folders are made here")
    store: Path = Field(
        Path(".nfbmr/store"),
        description="features, latents and fitted stages shared by all runs: a folder, or s3://bucket/prefix",
    )
    data: DataConfig = DataConfig()
    features: FeatureConfig = FeatureConfig()
    flow: FlowConfig = FlowConfig()
    mapping: MappingConfig = MappingConfig()
    detail: DetailConfig = DetailConfig()
    train: TrainConfig = TrainConfig()
    scoring: ScoringConfig = ScoringConfig()
    selection: SelectionConfig = SelectionConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="before")
    @classmethod
    def _method_sections(cls, values: Any) -> Any:
        return with_method_sections(values, cls.model_fields) if isinstance(values, Mapping) else values

    @field_validator("store")
    @classmethod
    def _address(cls, value: Path) -> Path:
        return store_address(value)

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if self.scoring.weights not in ("auto", "paper") and sum(map(abs, self.scoring.weights)) == 0:  # type: ignore[arg-type]
            raise ValueError("scoring.weights are all zero: nothing would be scored")
        if is_ours(self.method) and self.train.model_extra:
            raise ValueError(f"train.{min(self.train.model_extra)}: {self.method} has no such stage")
        if self.selection.on == "test" and self.data.known_defects is not None:
            raise ValueError("selection.on=test chooses on the whole test set: leave data.known_defects out")
        return self
