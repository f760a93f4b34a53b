"""What is looked at before an ablation starts: categories, data sets, splits, and whether methods can run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import get_args

from nfbmr.config import Config
from nfbmr.errors import ConfigError, NfbmrError
from nfbmr.fields import did_you_mean
from nfbmr.resolve import digest
from nfbmr.text import count, visible
from tune.ablation.cell import Cell
from tune.execution.method_settings import problem_with
from tune.tables.rows import AblationSpec


def problems_with(cells: Iterable[Cell]) -> list[str]:
    """What stands in the way of cells; each data set and each method's settings are looked at once."""
    problems = []
    seen: set[str] = set()
    for cell in cells:
        config = cell.task.config
        method = config.model_dump(mode="json", exclude={"data", "seed", "output", "store"})
        for check, section in ((_check_data, config.data), (_check_method, method)):
            if (name := digest(section)) in seen:
                continue
            seen.add(name)
            try:
                check(config)
            except NfbmrError as error:
                where = "" if error.where is None else f" ({error.where})"
                fix = "" if error.fix is None else f"; {error.fix}"
                about = f"{cell.row}, {cell.category}" if cell.category else cell.row
                problems.append(f"{about}: {error.what}{where}{fix}")
    return problems


def categories_of(config: Config, asked: Sequence[str] | None) -> tuple[str | None, ...]:
    """The categories to run; those asked for are all to be found.

    Raises:
        ConfigError: Some are not, or the data set has none.
        DataError: The data set cannot be read.
    """
    from nfbmr.data.layouts import categories

    if config.data.path is None:
        from nfbmr.data.synthesize import CLASSES

        known = tuple(CLASSES)
    else:
        known = categories(config.data.path, config.data.layout)
    if asked is None:
        whole = config.data.category in (None, "all") and config.data.path is not None and known
        return known if whole else (config.data.category,)
    wrong = [name for name in asked if name not in known]
    if not wrong and asked:
        return tuple(dict.fromkeys(asked))
    if not known:
        raise ConfigError(
            "the data set has no categories", where=config.data.path, fix="leave out --categories"
        )
    listed = "; ".join(f"{visible(name)}{did_you_mean(name, known)}" for name in wrong) or "none are given"
    raise ConfigError(
        f"no such categories: {listed}", where="--categories", fix=f"there are: {', '.join(known)}"
    )


def splits_of(config: Config, category: str | None, asked: Sequence[str]) -> tuple[str, ...]:
    """Splits by their own names, each once; none asked for is the configuration's.

    Raises:
        ConfigError: One does not fit the data set.
        DataError: The data set cannot be read.
    """
    from nfbmr.config import DataConfig
    from nfbmr.prepare import read_data

    names = []
    for name in asked or (config.data.split,):
        known = get_args(DataConfig.model_fields["split"].annotation)
        if name not in known:
            raise ConfigError(
                f"no such split {visible(name)}{did_you_mean(name, known)}",
                where="--split",
                fix=f"splits are {', '.join(known)}",
            )
        data = config.data.model_copy(update={"category": category, "split": name})
        names.append(read_data(config.model_copy(update={"data": data}))[1].name)
    return tuple(dict.fromkeys(names))


def _check_data(config: Config) -> None:
    from nfbmr.prepare import read_data

    _, split = read_data(config)
    good = sum(sample.is_good for sample in split.test)
    if good in (0, len(split.test)):
        missing = "good" if good == 0 else "defective"
        raise ConfigError(
            f"the test set holds no {missing} image, so rows cannot be compared",
            where=config.data.path,
            fix="add some, or choose another split",
        )


def _check_method(config: Config) -> None:
    from nfbmr.features.backbone import shared_backbone
    from nfbmr.features.passes import passes_of

    first = passes_of(config.features)[0]
    shared_backbone(first).shapes(first.shape)
    problem = problem_with(config)
    if problem is not None:
        raise ConfigError(problem)


def as_error(problems: Sequence[str], spec: AblationSpec) -> ConfigError:
    """All problems with an ablation as one error."""
    listed = "".join(f"\n  - {problem}" for problem in problems)
    return ConfigError(
        f"{count(len(problems), 'problem')} with the ablation {spec.name}:{listed}",
        fix="mend these, and run the same command again: nothing was started",
    )
