"""A trained method as MLflow runs it: the one file of code that each logged model brings along.

MLflow executes this file when a model is loaded; nothing in it is pickled. It imports nfbmr from the archive
beside the weights, unless this process has imported nfbmr already, and nothing else of this project.

In: a table of one column, or a list. Each item is base64 text or bytes of an image file, a path, or an
array. Out: a table with a row an item; see :mod:`nfbmr.answering`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

if TYPE_CHECKING:
    from nfbmr.answering import Answering

SERVING = "_MLFLOW_IS_IN_SERVING_ENVIRONMENT"
"""MLflow sets this variable where it answers requests."""


class DefectDetector(PythonModel):
    """Scores images of parts: how far each is from the good ones it was trained on.

    ``model_config`` takes ``device`` (auto, cpu, cuda), ``max_pixels`` (larger images are refused) and
    ``paths`` (whether items may be paths of this machine; auto: not where requests are answered).
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Load the networks."""
        if "nfbmr" not in sys.modules:
            sys.path.insert(0, context.artifacts["code"])
        from nfbmr.answering import Answering
        from nfbmr.training.compute import limit_threads

        limit_threads()
        config = context.model_config or {}
        self.paths = config.get("paths", "auto")
        self.answering: Answering = Answering.load(
            Path(context.artifacts["model"]),
            device=config.get("device", "auto"),
            max_pixels=int(config["max_pixels"]),
        )

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """A row an image; ``params`` takes ``threshold`` and ``heatmap``."""
        from nfbmr.errors import ConfigError

        params = params or {}
        try:
            rows = self.answering.rows(
                _items(model_input),
                threshold=params.get("threshold"),
                heatmaps=bool(params.get("heatmap")),
                paths=self._reads_paths(),
            )
        except ConfigError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        return _table(rows, self.answering.columns)

    def _reads_paths(self) -> bool:
        if self.paths == "auto":
            return os.environ.get(SERVING, "").lower() not in ("true", "1")
        return bool(self.paths)


def _items(model_input: Any) -> list[Any]:
    """The images, one by one."""
    if not isinstance(model_input, pd.DataFrame):
        return list(model_input)
    if model_input.shape[1] != 1:
        names = ", ".join(map(str, model_input.columns))
        raise MlflowException.invalid_parameter_value(
            f"one column of images is meant, and there are {model_input.shape[1]} ({names})"
        )
    items: list[Any] = model_input.iloc[:, 0].tolist()
    # {"image": [a, b]} arrives as one cell that holds all of them.
    if len(items) == 1 and isinstance(items[0], list | tuple):
        inner = list(items[0])
        if inner and all(isinstance(item, str | bytes) for item in inner):
            return inner
    return items


def _table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> pd.DataFrame:
    """Rows as a table in which nothing is made a number that is none: JSON knows no NaN."""
    return pd.DataFrame(
        {
            name: pd.Series([row[name] for row in rows], dtype=_type([row[name] for row in rows]))
            for name in columns
        }
    )


def _type(values: list[Any]) -> Any:
    kinds = {type(value) for value in values}
    return {frozenset({float}): "float64", frozenset({bool}): "bool"}.get(frozenset(kinds), "object")


set_model(DefectDetector())
