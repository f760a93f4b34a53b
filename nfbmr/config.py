"""The one configuration: typed, frozen, validated where it is made.

YAML files, ``--set flow.blocks=8``, sweeps and checkpoints all go through :class:`Config`. How layers of
settings are merged, and where each value came from, is :mod:`nfbmr.resolve`.
What the papers leave open is a field here with a named default; the field's description says so.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from nfbmr.addresses import store_address

Fraction = Annotated[float, Field(gt=0.0, lt=1.0)]
PositiveInt = Annotated[int, Field(ge=1)]
VIEWS = ("flip-h", "flip-v", "rot90", "rot180", "rot270", "darker", "brighter")
View = Literal["flip-h", "flip-v", "rot90", "rot180", "rot270", "darker", "brighter"]
Taps = tuple[int | str, ...]
Scale = Annotated[float, Field(gt=0.0, le=1.0)]
Momentum = Annotated[float, Field(ge=0.0, lt=1.0)]
Coreset = Annotated[float, Field(gt=0.0, le=1.0)]
Rate = Annotated[float, Field(gt=0.0)]


def _distinct(value: tuple[Any, ...], field: ValidationInfo) -> tuple[Any, ...]:
    """Refuse a list that names something twice."""
    if len(set(map(str, value))) != len(value):
        raise ValueError(f"names a {str(field.field_name).removesuffix('s')} twice")
    return value


class Section(BaseModel):
    """A frozen part of the configuration that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


class DataConfig(Section):
    """Which images, and how they are split."""

    path: Path | None = Field(
        None, description="folder of images; nothing means the synthetic demonstration set"
    )
    layout: Literal["auto", "mvtec", "dagm", "mtd", "folder"] = Field(
        "auto", description="how the folder is laid out"
    )
    category: str | None = Field(
        None, description="MVTec category or DAGM class, where the folder holds several"
    )
    split: Literal["auto", "official", "legacy", "group", "random"] = Field(
        "auto", description="official (MVTec, DAGM), legacy or group (MTD), random or group (own folder)"
    )
    group_by: str | None = Field(
        None,
        description="regular expression on the relative path; its first group names the part photographed",
    )
    test_fraction: Fraction = Field(
        0.2, description="share of the good images (or groups) kept for the test set"
    )
    validation_fraction: Fraction = Field(
        0.2, description="share of the training images (or groups) held out"
    )
    limit_train: PositiveInt | None = Field(None, description="train on this many images at most (few-shot)")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of the split")

    @field_validator("group_by")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                groups = re.compile(value).groups
            except re.error as error:
                raise ValueError(f"not a regular expression ({error})") from error
            if groups != 1:
                raise ValueError(f"needs exactly one capturing group, has {groups}")
        return value


class TargetConfig(Section):
    """A second frozen backbone, for methods that map between the features of two (PFM)."""

    backbone: str | None = Field(None, description="any timm model name; null where a method reads one alone")
    weights: str = Field("auto", description="as features.weights")
    taps: Taps = Field((), description="as features.taps, level by level")

    _distinct = field_validator("taps")(_distinct)


class FeatureConfig(Section):
    """The frozen backbone, and what is done to an image before it."""

    backbone: str = Field("tf_efficientnet_lite0", description="any timm model name")
    weights: str = Field(
        "auto",
        description="auto, hub, packaged, random, or a .pth / .safetensors file; auto = packaged, then hub",
    )
    taps: Taps = Field(
        ("blocks.5",), min_length=1, description="flat block indices (0-based) or module paths"
    )
    target: TargetConfig = TargetConfig()
    size: int = Field(256, ge=32, le=4096, description="images are resized to a square of this many pixels")
    scales: tuple[Scale, ...] = Field(
        (1.0,), min_length=1, description="shares of size at which images are seen, each a pass of its own"
    )
    photometric: Literal["none", "brightness", "standardize"] = Field(
        "none", description="per image: nothing, mean grey set to 0.5, or mean 0.5 and standard deviation 0.2"
    )
    views: tuple[View, ...] = Field((), description="training augmentations, each extracted once")
    rotations: PositiveInt = Field(
        1, description="training images are also seen turned by each of so many parts of a full turn"
    )
    test_rotations: PositiveInt = Field(
        1, description="an image's score is the mean over so many parts of a full turn; needs pooled"
    )
    pooled: bool = Field(False, description="store means over positions instead of maps (DifferNet)")
    dtype: Literal["float16", "bfloat16"] = Field("float16", description="type in the store")
    compute: Literal["auto", "fp32", "bf16"] = Field("auto", description="arithmetic of the forward pass")
    compile: bool = Field(False, description="torch.compile with frozen weights; slow to start, faster after")
    batch: PositiveInt = Field(16, description="images a forward pass")

    _distinct = field_validator("views", "taps", "scales")(_distinct)

    @model_validator(mode="after")
    def _turned(self) -> FeatureConfig:
        if self.test_rotations > 1 and not self.pooled:
            raise ValueError("maps of turned images do not lie on each other: test_rotations needs pooled")
        return self


class FlowConfig(Section):
    """The TNF: K affine coupling blocks. All but blocks and hidden are left open by the paper."""

    blocks: int = Field(4, ge=1, le=64, description="coupling blocks K")
    hidden: PositiveInt = Field(256, description="hidden channels of a coupling subnet (paper: 1024)")
    kernels: tuple[int, ...] = Field(
        (3, 3, 3, 5), description="kernel size a block, the last repeated (CS-Flow)"
    )
    clamp: float = Field(3.0, gt=0, le=10, description="soft clamp of the log scale s (CS-Flow)")
    activation: Literal["relu", "leaky_relu", "gelu", "silu"] = Field("relu", description="in the subnets")
    padding: Literal["zeros", "reflect", "replicate"] = Field(
        "zeros", description="of the subnets' convolutions"
    )
    standardize: bool = Field(True, description="per-channel standardisation of y on the training set first")

    @field_validator("kernels")
    @classmethod
    def _odd(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or any(k < 1 or k % 2 == 0 for k in value):
            raise ValueError("needs odd kernel sizes, so that the map keeps its size")
        return value


class MappingConfig(Section):
    """Two mapping networks sharing their middle: the BMR's, or B-PFM's. The method says which."""

    residual_blocks: int = Field(
        2, ge=1, le=16, description="residual blocks n on each side of the shared one"
    )
    latent: PositiveInt = Field(256, description="channels C_latent inside (paper: 1024)")
    pfm_latent: tuple[PositiveInt, ...] = Field(
        (200, 400, 900), min_length=1, description="latent width l of PFM's networks, level by level"
    )
    pfm_rates: tuple[Rate, ...] = Field(
        (1.0,), min_length=1, description="shares of train.mapping.lr that PFM's levels learn with"
    )


class CFlowConfig(Section):
    """What cflow has besides the flow section."""

    code: int = Field(
        128, ge=4, multiple_of=4, description="channels of the code that tells a position's place"
    )


class PaDiMConfig(Section):
    """A Gaussian at each position."""

    channels: PositiveInt = Field(
        100, description="channels drawn at random of all taps' (published: 100; 550 for wide networks)"
    )
    epsilon: float = Field(0.01, gt=0, description="added to the diagonal of each covariance")


class SPADEConfig(Section):
    """Nearest images, then nearest positions."""

    neighbours: PositiveInt = Field(50, description="nearest images K")


class PatchCoreConfig(Section):
    """A bank of patches, thinned out."""

    coreset: Coreset = Field(
        0.1, description="share of all patches that is kept (published: 0.25, 0.1, 0.01)"
    )
    patch: int = Field(3, ge=1, description="side of the neighbourhood that a patch averages; odd")
    projection: PositiveInt = Field(
        128, description="dimensions of the random projection that patches are chosen in"
    )
    neighbours: PositiveInt = Field(
        9, description="patches of the bank that an image's score is weighed by; 1 = the maximum of the map"
    )

    @field_validator("patch")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("needs an odd side, so that a patch has a middle")
        return value


class StageConfig(Section):
    """How one stage is trained."""

    epochs: int = Field(20, ge=1)
    batch: PositiveInt = 8
    lr: float = Field(2e-4, gt=0, description="peak of the schedule")
    weight_decay: float = Field(1e-5, ge=0)
    betas: tuple[Momentum, Momentum] = Field((0.9, 0.999), description="of Adam")
    eps: float = Field(1e-8, gt=0, description="of Adam")
    clip: float | None = Field(1.0, gt=0, description="gradient norm limit (open in the paper; CS-Flow: 1)")
    schedule: Literal["constant", "cosine"] = Field(
        "cosine", description="of the learning rate (open in the paper)"
    )


class MappingStageConfig(StageConfig):
    """How the mapping is trained: a class of its own, so that its defaults hold whatever else is set."""

    epochs: int = Field(10, ge=1)
    lr: float = Field(3e-4, gt=0, description="peak of the schedule")


class TrainConfig(Section):
    """Both stages, and the machine they run on."""

    flow: StageConfig = StageConfig()
    mapping: MappingStageConfig = MappingStageConfig()
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="autocast; auto = bf16 where it is faster"
    )
    compile: bool = Field(False, description="torch.compile the stage's module")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, ...")
    checkpoint_every: PositiveInt = Field(5, description="epochs between checkpoints")
    validate_every: PositiveInt = Field(1, description="epochs between looks at the validation set")


class ScoringConfig(Section):
    """From error maps to one score: fixed here, or chosen on validation data."""

    weights: tuple[float, ...] | Literal["auto", "paper"] = Field(
        "auto",
        description="of the method's score parts, in order (nf-bmr: source error, target error, ||z||^2); "
        "paper: as published, parts as they are",
    )
    normalise: Literal["position", "part", "none"] = Field(
        "part",
        description="by mean and deviation on good validation images: a part's, a position's, or not",
    )
    reduction: Literal["auto", "max", "mean", "topk", "image"] = Field(
        "auto", description="of a map to the image score; image = the method's own, where it has one"
    )
    topk: tuple[Fraction, ...] = Field(
        (0.02, 0.07, 0.2), min_length=1, description="shares of the positions that topk may average"
    )
    pool: float = Field(
        0.0,
        ge=0,
        le=20,
        description="Gaussian mean of error vectors before their norm, sigma in feature positions; paper: 0",
    )
    smooth: float = Field(
        1.0, ge=0, le=20, description="Gaussian smoothing of the map, sigma in feature positions"
    )


class SelectionConfig(Section):
    """What chooses the epoch, the reduction, the weights and the threshold."""

    on: Literal["validation", "test"] = Field(
        "validation",
        description="test re-runs papers that select on the test set; results are marked test-peeked",
    )
    epoch: Literal["best", "last"] = Field(
        "best",
        description="best: of the epochs that validation cannot tell apart, that of least held-out loss",
    )
    defects: tuple[Literal["cutpaste", "blend", "scratch"], ...] = Field(
        ("cutpaste", "blend", "scratch"),
        min_length=1,
        description="kinds of synthetic defects pasted on held-out normals",
    )
    per_image: PositiveInt = Field(
        1, description="synthetic defects made of each held-out normal, per kind at most"
    )
    false_reject_rate: Fraction = Field(0.05, description="share of good parts the threshold may reject")


class EvaluationConfig(Section):
    """Metrics, their intervals, and pictures."""

    bootstrap: int = Field(1000, ge=0, le=100_000, description="resamples for an interval; 0 = none")
    confidence: Fraction = Field(0.95)
    aupro_limit: float = Field(
        0.3, gt=0, le=1, description="false-positive rate up to which AUPRO integrates"
    )
    heatmaps: int = Field(6, ge=0, description="heat maps each of best, worst and borderline")


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
        return self
