"""Every path of a sweep and of an ablation, in one place; nobody else joins strings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from nfbmr.errors import ConfigError
from nfbmr.fields import did_you_mean


@dataclass(frozen=True)
class PlanPaths:
    """What the folders of sweeps and ablations have in common.

    Attributes:
        root: ``<output>/<name>``; the name is the ``run_id`` of the parent run.
    """

    root: Path

    @property
    def name(self) -> str:
        """Of the sweep or the ablation."""
        return self.root.name

    @property
    def plan(self) -> Path:
        """What was asked."""
        raise NotImplementedError

    @property
    def journal(self) -> Path:
        """Journal of the parent run."""
        return self.root / "tracking"

    @property
    def ray(self) -> Path:
        """Ray Tune's own files; nothing in them is needed again."""
        return self.root / "ray"

    @property
    def stop(self) -> Path:
        """A file whose presence asks running trials to checkpoint and stop."""
        return self.root / "stop"

    @property
    def lock(self) -> Path:
        """Held by the one process that drives."""
        return self.root / "lock"

    @property
    def summary(self) -> Path:
        """What ``--json`` prints; written last."""
        return self.root / "summary.json"

    @property
    def pictures(self) -> Path:
        """Folder of pictures."""
        return self.root / "pictures"

    def table(self, kind: str) -> Path:
        """The table of results: ``md``, ``csv`` or ``tex``."""
        return self.root / f"table.{kind}"

    @property
    def results(self) -> Path:
        """All numbers as one long frame; see :mod:`tune.tables.frame`."""
        return self.root / "results.parquet"

    def files(self, *kinds: str) -> dict[str, str]:
        """Tables and the frame of results, by ending."""
        return {kind: str(self.table(kind)) for kind in kinds} | {"parquet": str(self.results)}


@dataclass(frozen=True)
class SweepPaths(PlanPaths):
    """The folder of a sweep.

    Example:
        >>> SweepPaths(Path("runs/tiles")).trial(7).as_posix()
        'runs/tiles/trials/0007'
    """

    @property
    def plan(self) -> Path:
        """What was asked."""
        return self.root / "sweep.yaml"

    @property
    def study(self) -> Path:
        """Optuna's journal."""
        return self.root / "study.journal"

    def trial(self, number: int) -> Path:
        """A trial's run folder."""
        return self.root / "trials" / f"{number:04d}"


@dataclass(frozen=True)
class AblationPaths(PlanPaths):
    """The folder of an ablation.

    Example:
        >>> AblationPaths(Path("runs/table5")).cell("n=2", "bottle", 0).as_posix()
        'runs/table5/cells/n=2/bottle/seed-0'
    """

    @property
    def plan(self) -> Path:
        """What was asked."""
        return self.root / "ablation.yaml"

    def cell(self, row: str, category: str | None, seed: int, split: str | None = None) -> Path:
        """A cell's run folder; with a level for the split where there may be several."""
        levels = [level for level in (category, split) if level is not None]
        return self.root.joinpath("cells", row, *levels, f"seed-{seed}")

    @property
    def scatter(self) -> Path:
        """The picture of a comparison: quality against latency."""
        return self.pictures / "quality-latency.png"


_Paths = TypeVar("_Paths", bound=PlanPaths)


def find(name_or_path: str, output: Path, *kinds: type[_Paths], what: str) -> _Paths:
    """The folder of an earlier sweep or ablation: ``<output>/<name>``, or the path that was given.

    Args:
        name_or_path: What the user typed.
        output: Where names are looked up.
        kinds: What it may be.
        what: The same in words.

    Raises:
        ConfigError: There is none; the nearest name, and those there are, are given.
    """
    for folder in (output / name_or_path, Path(name_or_path)):
        for kind in kinds:
            if kind(folder).plan.exists():
                return kind(folder)
    plans = [path for kind in kinds for path in output.glob(f"*/{kind(output).plan.name}")]
    names = sorted(path.parent.name for path in plans)
    known = f"in {output} there are {', '.join(names[-8:])}" if names else f"there is none in {output}"
    raise ConfigError(
        f"no {what} {name_or_path}{did_you_mean(name_or_path, names)}",
        where=output / name_or_path,
        fix=f"{known}; give --output, or its folder",
    )
