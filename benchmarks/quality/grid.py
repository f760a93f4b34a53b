"""The grid: named settings, chosen to span good and bad.

A name reads ``METHOD-SIZE-TAPS[-SCALES]-kKERNEL-eEPOCHS[+SCORING]``; what comes after ``+`` changes the
scoring alone, and shares its fitted networks with the setting before it. All but ``default`` and
``default-patchcore`` say every value that matters, so that they mean the same when defaults change.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nfbmr import yaml_text
from nfbmr.errors import ConfigError

GRIDS = ("small", "full", "quick")
TAPS = {
    "b5": ["blocks.5"],
    "b4": ["blocks.4"],
    "b2b4": ["blocks.2", "blocks.4"],
    "b1b2b4": ["blocks.1", "blocks.2", "blocks.4"],
    "b2b4b6": ["blocks.2", "blocks.4", "blocks.6"],
}
THREE = [1.0, 0.5, 0.25]
SCORINGS: Mapping[str, Mapping[str, Any]] = {
    "max": {"scoring.reduction": "max"},
    "max0": {"scoring.reduction": "max", "scoring.smooth": 0.0},
    "mean": {"scoring.reduction": "mean"},
    "topk": {"scoring.reduction": "topk"},
    "auto": {"scoring.reduction": "auto", "scoring.weights": "auto"},
    "auto0": {"scoring.reduction": "auto", "scoring.weights": "auto", "scoring.smooth": 0.0},
    "position": {"scoring.normalise": "position"},
}
"""What may stand after ``+``."""


@dataclass(frozen=True)
class Setting:
    """A point of the grid.

    Attributes:
        name: Unique in the grid.
        values: Dotted keys to values, over the defaults.
        small: Whether it belongs to the small grid.
        few: Whether ``--limit-train`` is tried on it.
    """

    name: str
    values: Mapping[str, Any] = field(default_factory=dict)
    small: bool = False
    few: bool = False

    def scored(self, *names: str, small: Sequence[str] = ()) -> Iterator[Setting]:
        """The setting, and itself with other scorings.

        Args:
            names: Keys of :data:`SCORINGS`.
            small: Which of these belong to the small grid.
        """
        yield self
        for name in names:
            yield Setting(f"{self.name}+{name}", {**self.values, **SCORINGS[name]}, small=name in small)


def full_grid() -> tuple[Setting, ...]:
    """Every setting of the full grid."""
    return (
        Setting("default", {}, small=True, few=True),
        Setting("default-patchcore", {"method": "patchcore"}, few=True),
        *_patchcore(),
        *_padim(),
        *_flows(),
        *_mappings(),
        *_others(),
    )


def quick_grid() -> tuple[Setting, ...]:
    """Two settings that are fitted in seconds, one of them scored twice."""
    tiny: dict[str, Any] = {
        "features.size": 64,
        "features.taps": ["blocks.2"],
        "features.scales": [1.0],
        "flow.blocks": 2,
        "flow.hidden": 8,
        "flow.kernels": [1],
        "train.flow.epochs": 2,
    }
    measured = {"method": "patchcore", "features.size": 64, "features.taps": ["blocks.2"]}
    return (
        Setting("patchcore-64", measured, few=True),
        *Setting("nf-64", {"method": "nf", **tiny}).scored("max0"),
    )


def _patchcore() -> Iterator[Setting]:
    for size in (256, 384, 512):
        for taps in ("b2b4", "b4", "b5"):
            values = {
                "method": "patchcore",
                "features.size": size,
                "features.taps": TAPS[taps],
                "patchcore.coreset": 0.02,
                "patchcore.patch": 3,
                "scoring.weights": "paper",
                "scoring.reduction": "image",
                "scoring.smooth": 0.5,
            }
            known = taps == "b2b4" and size != 384
            setting = Setting(f"patchcore-{size}-{taps}", values, small=known, few=known)
            yield from setting.scored(*{"b2b4": ("max", "mean"), "b5": ("max0",)}.get(taps, ()))
    single = {**values, "features.size": 256, "features.taps": TAPS["b2b4"], "patchcore.patch": 1}
    yield Setting("patchcore-256-b2b4-patch1", single)


def _padim() -> Iterator[Setting]:
    for size, taps in ((256, "b1b2b4"), (256, "b2b4"), (512, "b2b4"), (256, "b5")):
        values = {
            "method": "padim",
            "features.size": size,
            "features.taps": TAPS[taps],
            "padim.channels": 100,
            "scoring.weights": "paper",
            "scoring.reduction": "max",
            "scoring.smooth": 1.0,
        }
        first = taps == "b1b2b4"
        yield from Setting(f"padim-{size}-{taps}", values, small=first, few=first).scored(
            *(("mean",) if taps == "b2b4" else ())
        )


def _flow(
    method: str,
    size: int,
    taps: str,
    kernel: int,
    epochs: int,
    *,
    joined: str | None = None,
    small: bool = False,
    few: bool = False,
) -> Setting:
    """A flow, with a mapping or alone; where `joined` is given, three scales joined there.

    Subnets of 3x3 are narrower, so that they cost little more than those of 1x1.
    """
    blocks, hidden, rate = (6, 256, 2e-3) if kernel == 1 else (4, 128, 1e-3)
    values: dict[str, Any] = {
        "method": method,
        "features.size": size,
        "features.taps": TAPS[taps],
        "features.scales": THREE if joined else [1.0],
        "features.joined": joined or "coarsest",
        "features.detail.taps": [],
        "flow.blocks": blocks,
        "flow.hidden": hidden,
        "flow.kernels": [kernel],
        "train.flow.epochs": epochs,
        "train.flow.batch": 16,
        "train.flow.lr": rate,
        "scoring.weights": "auto",
        "scoring.normalise": "part",
        "scoring.reduction": "auto",
        "scoring.smooth": 1.0,
    }
    if method == "nf-bmr":
        values |= {
            "mapping.residual_blocks": 2,
            "mapping.latent": 256,
            "train.mapping.epochs": max(3, epochs // 2),
            "train.mapping.batch": 16,
            "train.mapping.lr": 1e-3,
        }
    scales = f"-3{joined}" if joined else ""
    return Setting(f"{method}-{size}-{taps}{scales}-k{kernel}-e{epochs}", values, small=small, few=few)


def _flows() -> Iterator[Setting]:
    yield _flow("nf", 192, "b5", 1, 3, small=True)
    yield from _flow("nf", 256, "b5", 1, 10, small=True, few=True).scored(
        "max", "max0", "mean", "topk", "position", small=("max0", "mean")
    )
    yield _flow("nf", 256, "b5", 1, 20)
    yield _flow("nf", 256, "b5", 3, 10)
    yield from _flow("nf", 256, "b4", 1, 10).scored("max0")
    yield from _flow("nf", 256, "b2b4", 1, 10).scored("max0")
    yield from _flow("nf", 384, "b2b4", 1, 10).scored("max0")
    yield _flow("nf", 256, "b5", 1, 20, joined="coarsest")
    yield from _flow("nf", 256, "b5", 1, 20, joined="middle").scored("max0")
    yield _flow("nf", 256, "b5", 1, 20, joined="finest")
    yield _flow("nf", 512, "b5", 1, 3)
    yield from _flow("nf", 512, "b5", 1, 10, small=True).scored("max0", "mean", small=("max0",))
    yield _flow("nf", 512, "b5", 3, 3)
    yield from _flow("nf", 512, "b5", 3, 10).scored("max0")
    yield _flow("nf", 512, "b4", 1, 10)


def _mappings() -> Iterator[Setting]:
    yield _flow("nf-bmr", 192, "b5", 1, 3)
    yield from _flow("nf-bmr", 256, "b5", 1, 20, joined="middle", small=True).scored("max0", "mean")
    yield from _flow("nf-bmr", 256, "b5", 1, 10).scored("max0")
    yield from _flow("nf-bmr", 256, "b4", 1, 10).scored("max0")
    yield _flow("nf-bmr", 256, "b2b4", 1, 3)
    yield from _flow("nf-bmr", 512, "b5", 1, 10, small=True, few=True).scored("max0")
    for size in (512, 640):
        detail = {"features.detail.taps": TAPS["b2b4"], "features.detail.size": size}
        for method in ("nf", "nf-bmr"):
            coarse = _flow(method, 256, "b5", 1, 10, joined="middle")
            yield replace(
                coarse, name=f"{coarse.name}-d{size}", values={**coarse.values, **detail}, small=size == 512
            )
    yield _flow("nf-bmr", 512, "b5", 3, 10)
    yield _flow("nf-bmr", 384, "b5", 1, 10, joined="finest")


def _others() -> Iterator[Setting]:
    pooled = {
        "method": "differnet",
        "features.size": 256,
        "features.scales": THREE,
        "features.rotations": 4,
        "features.test_rotations": 4,
        "flow.blocks": 4,
        "flow.hidden": 256,
        "train.flow.epochs": 20,
    }
    yield Setting("differnet-256-e20", pooled, few=True)
    for size, epochs in ((256, 10), (384, 10)):
        crossing = {
            "method": "cs-flow",
            "features.size": size,
            "features.scales": THREE,
            "flow.blocks": 4,
            "flow.hidden": 64,
            "flow.kernels": [3],
            "train.flow.epochs": epochs,
        }
        yield from Setting(f"cs-flow-{size}-e{epochs}", crossing).scored(*(("max",) if size == 384 else ()))
    conditional = {
        "method": "cflow",
        "features.size": 256,
        "features.taps": TAPS["b2b4b6"],
        "flow.blocks": 4,
        "flow.hidden": 128,
        "train.flow.epochs": 5,
    }
    yield Setting("cflow-256-b2b4b6-e5", conditional)
    neighbours = {"method": "spade", "features.size": 256, "features.taps": TAPS["b2b4b6"]}
    yield Setting("spade-256-b2b4b6", neighbours)


def settings_of(grids: Sequence[str], only: Sequence[str] = ()) -> tuple[Setting, ...]:
    """The settings of named grids and of files, each name once.

    Args:
        grids: Of :data:`GRIDS`, and files (:func:`grid_file`); a later setting of a name replaces an earlier.
        only: Patterns as the shell has them; what fits none is left out.

    Raises:
        ConfigError: There is no such grid, a file cannot be used, or nothing is left.
    """
    settings: dict[str, Setting] = {}
    for name in grids:
        settings |= {setting.name: setting for setting in _grid(name)}
    chosen = tuple(
        s for s in settings.values() if not only or any(fnmatch.fnmatchcase(s.name, p) for p in only)
    )
    if not chosen:
        raise ConfigError(
            "no setting of the grid has such a name",
            where=f"--only {' '.join(only)}",
            fix=f"there are {', '.join(settings)}",
        )
    return chosen


def _grid(name: str) -> tuple[Setting, ...]:
    if name == "quick":
        return quick_grid()
    if name in GRIDS:
        return tuple(setting for setting in full_grid() if setting.small or name == "full")
    return grid_file(Path(name))


def grid_file(path: Path) -> tuple[Setting, ...]:
    """Settings from a YAML or JSON file: by name a mapping of keys, nested or dotted.

    ``like: NAME`` begins with the values of a setting of the full grid, or of an earlier one in the file;
    ``few: true`` tries ``--limit-train`` on it. The keys themselves are checked when the setting is run.

    Raises:
        ConfigError: The file cannot be read, or holds anything else.
    """
    try:
        document = yaml_text.parse(path.read_text(encoding="utf-8")).value
    except (OSError, UnicodeDecodeError, yaml_text.YamlError) as error:
        fix = f"give {', '.join(GRIDS)} or a YAML file"
        raise ConfigError(f"no such grid, nor a file of one ({error})", where=path, fix=fix) from error
    if not isinstance(document, Mapping) or not all(isinstance(v, Mapping) for v in document.values()):
        raise ConfigError(
            "not a mapping of names to settings", where=path, fix="write NAME: {features.size: 384, ...}"
        )
    known = {setting.name: setting for setting in full_grid()}
    settings = []
    for name, given in document.items():
        values = dict(_dotted(given))
        like, few = values.pop("like", None), bool(values.pop("few", False))
        if like is not None and like not in known:
            fix = f"there are {', '.join(known)}"
            raise ConfigError(f"{name} is to be like {like}, which does not exist", where=path, fix=fix)
        setting = Setting(str(name), {**(known[like].values if like else {}), **values}, few=few)
        known[setting.name] = setting
        settings.append(replace(setting, small=True))
    return tuple(settings)


def _dotted(values: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
