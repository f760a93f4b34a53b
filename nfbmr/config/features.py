"""The frozen backbone, and what is done to an image before it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
    PrivateAttr,
    field_validator,
    model_validator,
)

from nfbmr.config.section import PositiveInt, Section, Taps, distinct, odd_side

VIEWS = ("flip-h", "flip-v", "rot90", "rot180", "rot270", "darker", "brighter")
"""Names of the training augmentations, for messages and options."""
View = Literal["flip-h", "flip-v", "rot90", "rot180", "rot270", "darker", "brighter"]
"""A training augmentation: a mirror, a turn by quarters, or another exposure."""
Symmetry = Literal["none", "mirror", "flips", "turns", "square"]
"""Images of an image that its features are averaged over (:mod:`nfbmr.features.symmetry`)."""
TURNING: tuple[Symmetry, ...] = ("turns", "square")
"""Those that exchange rows and columns, which only a square allows."""
_Scale = Annotated[float, Field(gt=0.0, le=1.0)]
_DetailSize = Annotated[int, Field(ge=32, le=4096)]
_Depth = Literal[8, 10, 12, 14, 16]
_Aspect = Annotated[float, Field(ge=0.1, le=10.0)]


class TargetConfig(Section):
    """A second frozen backbone, for methods that map between the features of two (PFM)."""

    backbone: str | None = Field(None, description="any timm model name; null where a method reads one alone")
    weights: str = Field("auto", description="as features.weights")
    taps: Taps = Field((), description="as features.taps, level by level")

    _distinct = field_validator("taps")(distinct)


class DetailFeatureConfig(Section):
    """A second, finer look at each image, for methods that have one: nf, nf-bmr and nf-b-pfm."""

    taps: Taps = Field((), description="earlier taps, joined at the finest map; empty for no second look")
    size: _DetailSize | Literal["auto"] = Field(
        "auto",
        description="as features.size, of the second look; auto = half the training images' own resolution, "
        "between 640 and 1024, but never more than they have",
    )
    neighbourhood: int = Field(
        3, ge=1, description="side of the neighbourhood that each position averages; odd (PatchCore: 3)"
    )
    symmetry: Symmetry | Literal["auto"] = Field(
        "none",
        description="as features.symmetry, of the second look; auto = turns of square images whose "
        "edges run all ways, flips of others",
    )

    _distinct = field_validator("taps")(distinct)
    _odd = field_validator("neighbourhood")(odd_side)

    @property
    def pixels(self) -> int:
        """The size; 640 where it is open and no run has asked the images yet."""
        return 640 if self.size == "auto" else self.size

    @property
    def averaged_over(self) -> Symmetry:
        """The symmetry; flips where it is open and no run has asked the images yet."""
        return "flips" if self.symmetry == "auto" else self.symmetry


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
    detail: DetailFeatureConfig = DetailFeatureConfig()
    size: int = Field(
        256,
        ge=32,
        le=4096,
        description="images are resized to the area of a square of this many pixels",
    )
    aspect: _Aspect | Literal["auto"] = Field(
        "auto",
        description="width over height that images are resized to; auto = of the training images, the median",
    )
    tile: int | None = Field(
        None,
        ge=128,
        le=4096,
        description="side in pixels of overlapping tiles that an image is worked off in; null = whole",
    )
    scales: tuple[_Scale, ...] = Field(
        (1.0,), min_length=1, description="shares of size at which images are seen, each a pass of its own"
    )
    joined: Literal["coarsest", "middle", "finest"] = Field(
        "coarsest", description="the map whose size taps and scales are brought to, where a method joins them"
    )
    depth: _Depth | Literal["auto"] = Field(
        "auto",
        description="bits of the values in 16-bit files, 12 being 0 to 4095; auto = what the training "
        "images' values need",
    )
    photometric: Literal["none", "brightness", "standardize"] = Field(
        "none", description="per image: nothing, mean grey set to 0.5, or mean 0.5 and standard deviation 0.2"
    )
    views: tuple[View, ...] = Field((), description="training augmentations, each extracted once")
    symmetry: Symmetry = Field(
        "none",
        description="test-time augmentation: features averaged over none, the mirror image (mirror: two "
        "forward passes), left-right and up-down flips (flips: four), quarter turns (turns: four) or all "
        "eight (square)",
    )
    rotations: PositiveInt = Field(
        1, description="training images are also seen turned by each of so many parts of a full turn"
    )
    test_rotations: PositiveInt = Field(
        1, description="an image's score is the mean over so many parts of a full turn; needs pooled"
    )
    pooled: bool = Field(False, description="store means over positions instead of maps (DifferNet)")
    dtype: Literal["float16", "bfloat16"] = Field("float16", description="type in the store")
    compute: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="arithmetic of the forward pass; auto = bf16 where that is faster"
    )
    engine: Literal["auto", "torch", "openvino"] = Field(
        "auto",
        description="library of the forward pass on a CPU; auto = OpenVINO (nfbmr[export]) where that is "
        "faster in fp32 and there are enough images",
    )
    compile: bool = Field(False, description="torch.compile with frozen weights; slow to start, faster after")
    batch: PositiveInt = Field(16, description="images a forward pass")

    _distinct = field_validator("views", "taps", "scales")(distinct)
    _multiple: int = PrivateAttr(1)  # of one pass, which its network asks for: no setting

    @model_validator(mode="after")
    def _turned(self) -> FeatureConfig:
        if self.test_rotations > 1 and not self.pooled:
            raise ValueError("maps of turned images do not lie on each other: test_rotations needs pooled")
        if self.turns and self.aspect not in ("auto", 1.0):
            raise ValueError(
                "a turned image has other proportions: with turns, rotations and symmetry=turns or square, "
                "aspect is 1"
            )
        return self

    @model_validator(mode="after")
    def _in_float32(self) -> FeatureConfig:
        if self.engine == "openvino" and self.compute == "bf16":
            raise ValueError("OpenVINO computes in float32 here: engine=openvino needs compute auto or fp32")
        if self.engine == "openvino" and self.compile:
            raise ValueError("compile is torch's own: engine=openvino needs compile=false")
        return self

    @property
    def turns(self) -> bool:
        """Whether an image is also seen turned by less than half a turn, which only a square allows."""
        return (
            max(self.rotations, self.test_rotations) > 1
            or not {"rot90", "rot270"}.isdisjoint(self.views)
            or self.symmetry in TURNING
            or (self.detail.symmetry in TURNING and bool(self.detail.taps))
        )

    @property
    def bits(self) -> int:
        """The depth; 16 where it is open and no run has asked the images yet, as in models from before."""
        return 16 if self.depth == "auto" else self.depth

    def in_multiples_of(self, pixels: int) -> FeatureConfig:
        """The same, with sides of :attr:`shape` rounded to multiples of so many pixels.

        Example:
            >>> FeatureConfig(size=256, aspect=2.0).in_multiples_of(14).shape
            (196, 350)
        """
        rounded = self.model_copy()
        rounded._multiple = pixels
        return rounded

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) in pixels that an image is resized to, at the first of the scales.

        Sides of a rectangle are multiples of 32 (of 16 below a size of 256), and of 128 where tiles are set,
        so that half and quarter scales lie on the tiles' grid. An aspect that no run has resolved yet counts
        as 1, as it is in models from before there was one.

        Example:
            >>> FeatureConfig(size=256).shape, FeatureConfig(size=256, aspect=2.0).shape
            ((256, 256), (192, 352))
        """
        height = width = self.size
        aspect = 1.0 if self.aspect == "auto" else self.aspect
        if aspect != 1.0 or self.tile is not None:
            unit = 128 if self.tile is not None else 32 if self.size >= 256 else 16
            sides = (self.size / aspect**0.5, self.size * aspect**0.5)
            height, width = (max(32, unit, unit * round(side / unit)) for side in sides)
        height, width = round(height * self.scales[0]), round(width * self.scales[0])
        if self.tile is not None:
            height, width = (max(32, 32 * round(side / 32)) for side in (height, width))
        if (unit := self._multiple) > 1:
            height, width = (max(unit, unit * round(side / unit)) for side in (height, width))
        return height, width
