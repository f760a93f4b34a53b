"""A sweep whose three records agree."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from mlflow_server.tracking.sync import find_journals, sync
from tests.tune.verify.three_records import ENDS, Server, fitted, recorded
from tune.records.paths import SweepPaths


@pytest.fixture
def sweep(tmp_path: Path, uri: str) -> SweepPaths:
    """A sweep of four trials that is over, and was sent whole."""
    paths = SweepPaths(tmp_path / "runs" / "tiles")
    paths.root.mkdir(parents=True)
    paths.plan.write_text("name: tiles\n")
    recorded(paths.root, "tiles", uri).finish()
    study = optuna.create_study(
        study_name="tiles",
        storage=JournalStorage(JournalFileBackend(str(paths.study))),
        direction="maximize",
        sampler=optuna.samplers.RandomSampler(seed=0),
    )
    for number, end in enumerate(ENDS):
        trial = study.ask()
        trial.set_user_attr("settings", {"flow.blocks": trial.suggest_int("flow.blocks", 2, 8)})
        recorded(paths.trial(number), f"tiles-{number:04d}", uri, "tiles").finish(end)
        if end == "finished":
            fitted(paths.trial(number), 0.5 + number / 10)
            study.tell(trial, 0.5 + number / 10)
        elif end == "pruned":
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            trial.set_user_attr("error", "a loss that is not finite")
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
    assert all(sent.complete for sent in sync(find_journals([paths.root]), pause=0))
    return paths


@pytest.fixture
def server(uri: str, sweep: SweepPaths) -> Server:
    return Server(uri)
