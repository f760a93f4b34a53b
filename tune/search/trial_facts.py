"""What a study keeps of a finished trial besides its objective, as Optuna's user attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nfbmr.evaluation.intervals import Estimate
from nfbmr.evaluation.summary import RunSummary

if TYPE_CHECKING:
    import optuna

VALIDATION = "validation"
"""Name of the attribute that holds a trial's image AUROC on validation images, with its interval."""

SETTINGS = "settings"
"""Name of the attribute that holds what a trial's point sets, by dotted key."""

COPY_OF = "copy_of"
"""Name of the attribute that holds the number of the earlier trial which a trial repeats without a run."""

ERROR = "error"
"""Name of the attribute that holds what was wrong with a trial that failed."""

COPIED = ("parameters", VALIDATION)
"""Attributes of an earlier trial that hold for one that repeats it, too."""


def facts_of(summary: RunSummary) -> dict[str, Any]:
    """What the tables say of a trial, besides its objective, in words that Optuna's journal can hold."""
    auroc, memory = summary.metrics.get("validation", {}).get("image_auroc"), summary.gpu_memory
    return {
        "parameters": summary.total_parameters,
        "flow_reused": summary.reused.get("flow"),
        "saved_seconds": round(summary.total_saved_seconds, 3),
        VALIDATION: None if auroc is None else auroc.as_json(),
        "gpu_memory": None if memory is None else memory.as_json(),
    }


def validation_auroc(trial: optuna.trial.FrozenTrial) -> Estimate:
    """A trial's image AUROC on validation images, as its result had it; undefined where it had none."""
    return Estimate.from_json(trial.user_attrs.get(VALIDATION) or {})


def method_of(trial: optuna.trial.FrozenTrial | optuna.Trial) -> object:
    """The method that the space gave to a trial; None where methods are not searched."""
    return trial.params.get("method")


def is_copy(trial: optuna.trial.FrozenTrial) -> bool:
    """Whether a trial ended as an earlier one with the same point did, without being run."""
    return COPY_OF in trial.user_attrs
