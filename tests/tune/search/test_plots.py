"""The pictures of a study: those that can be drawn are, whatever the study holds, and nobody else notices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from PIL import Image

from nfbmr.errors import TrackingError
from tune.records.paths import SweepPaths
from tune.search.plots import draw_study, load_study

STATES = optuna.trial.TrialState


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def study_at(tmp_path: Path, directions: tuple[str, ...] = ("maximize",)) -> tuple[SweepPaths, optuna.Study]:
    paths = SweepPaths(tmp_path / "tiles")
    paths.root.mkdir()
    study = optuna.create_study(
        study_name="tiles",
        storage=JournalStorage(JournalFileBackend(str(paths.study))),
        directions=list(directions),
        sampler=optuna.samplers.RandomSampler(seed=0),
    )
    return paths, study


def tell(study: optuna.Study, count: int, state: Any = STATES.COMPLETE) -> None:
    """Trials with every kind of parameter, a conditional one and a long choice among them."""
    for _ in range(count):
        trial = study.ask()
        blocks = trial.suggest_int("flow.blocks", 2, 8, step=2)
        trial.suggest_int("flow.hidden", 16, 1024, log=True)
        rate = trial.suggest_float("train.flow.lr", 1e-5, 1e-2, log=True)
        taps = trial.suggest_categorical("features.taps", ("[blocks.4]", "[blocks.4, blocks.5, blocks.6]"))
        if taps == "[blocks.4]":
            trial.suggest_categorical("features.photometric", ("none", "brightness", None))
        for epoch in range(1, 5) if len(study.directions) == 1 else ():
            trial.report(blocks / 10 + epoch / 100, epoch)
        values = [blocks / 10, rate, 1.0][: len(study.directions)]
        study.tell(trial, values if state == STATES.COMPLETE else None, state=state)


def names(pictures: list[Path]) -> set[str]:
    return {picture.stem for picture in pictures}


def test_all_pictures_of_a_single_objective(tmp_path: Path) -> None:
    paths, study = study_at(tmp_path)
    tell(study, 20)
    tell(study, 1, STATES.PRUNED)
    tell(study, 1, STATES.FAIL)
    study.ask()
    pictures = draw_study(paths, ["validation/image_auroc"], near=[0, 3])
    assert names(pictures) == {"history", "importance", "slice", "parallel", "curves", "timeline"}
    for picture in pictures:
        assert picture.parent == paths.pictures
        with Image.open(picture) as image:
            image.load()
            assert image.width >= 900


def test_repeats_of_a_point_are_told_from_trials_that_ran(tmp_path: Path) -> None:
    drawn = []
    for kind in ("ran", "repeat"):
        (tmp_path / kind).mkdir()
        paths, study = study_at(tmp_path / kind)
        for number in range(3):
            trial = study.ask()
            if number == 2 and kind == "repeat":
                trial.set_user_attr("copy_of", 0)
            study.tell(trial, 0.5 + number / 10)
        drawn.append({picture.stem: picture for picture in draw_study(paths, ["auroc"])})
    assert drawn[0].keys() == drawn[1].keys() == {"history", "timeline"}
    pixels = [np.asarray(Image.open(pictures["history"]).convert("L")) for pictures in drawn]
    assert pixels[0].shape != pixels[1].shape or (pixels[0] != pixels[1]).any()


def test_several_objectives_have_a_front_and_pictures_each(tmp_path: Path) -> None:
    paths, study = study_at(tmp_path, ("maximize", "minimize"))
    tell(study, 20)
    assert names(draw_study(paths, ["validation/image_auroc", "cost.latency_ms"])) == {
        "pareto",
        "parallel",
        "timeline",
        *(
            f"{kind}-{goal}"
            for kind in ("history", "importance", "slice")
            for goal in ("validation-image_auroc", "cost.latency_ms")
        ),
    }


@pytest.mark.parametrize(
    ("complete", "failed", "expected"),
    [
        (0, 0, set()),
        (0, 2, {"curves", "timeline"}),
        (1, 0, {"history", "curves", "timeline"}),
        (19, 0, {"history", "curves", "timeline"}),
        (20, 0, {"history", "importance", "slice", "parallel", "curves", "timeline"}),
    ],
)
def test_few_trials_give_fewer_pictures(
    tmp_path: Path,
    complete: int,
    failed: int,
    expected: set[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    paths, study = study_at(tmp_path)
    tell(study, complete)
    tell(study, failed, STATES.FAIL)
    assert names(draw_study(paths, ["auroc"])) == expected
    assert not [entry for entry in caplog.records if entry.name.startswith("tune")]


def test_one_parameter_is_enough_and_equal_values_are_no_trouble(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths, study = study_at(tmp_path)
    for blocks in (2, 4, 4) * 7:
        study.enqueue_trial({"flow.blocks": blocks})
        trial = study.ask()
        trial.suggest_int("flow.blocks", 2, 8)
        study.tell(trial, 0.9)
    assert {"history", "parallel", "slice", "importance"} <= names(draw_study(paths, ["auroc"]))
    assert not [entry for entry in caplog.records if entry.name.startswith("tune")]


def test_more_dimensions_take_more_trials(tmp_path: Path) -> None:
    paths, study = study_at(tmp_path)
    for _ in range(23):
        trial = study.ask()
        study.tell(trial, sum(trial.suggest_float(f"d{d}", 0, 1) for d in range(8)))
    assert names(draw_study(paths, ["auroc"])) == {"history", "timeline"}


def test_pictures_of_too_few_trials_are_removed_and_others_stay(tmp_path: Path) -> None:
    paths, study = study_at(tmp_path)
    tell(study, 4)
    paths.pictures.mkdir()
    for name in ("importance", "slice-latency", "parallel", "mine"):
        (paths.pictures / f"{name}.png").write_bytes(b"drawn earlier")
    drawn = draw_study(paths, ["auroc"])
    assert set(paths.pictures.glob("*.png")) == {*drawn, paths.pictures / "mine.png"}


def test_nothing_of_matplotlib_is_left_changed(tmp_path: Path) -> None:
    from matplotlib import pyplot as plt

    paths, study = study_at(tmp_path)
    tell(study, 3)
    before, figures = dict(mpl.rcParams), plt.get_fignums()
    backend = mpl.get_backend()
    draw_study(paths, ["auroc"])
    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == figures
    assert mpl.get_backend() == backend


def test_a_journal_without_a_study_is_said(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    path.write_text("{}\n")
    with pytest.raises(TrackingError, match="no study"):
        load_study(path)
