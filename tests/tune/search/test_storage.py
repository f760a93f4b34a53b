"""A sweep's journal and history: one piece on the disk, others' notes, a bounded window, Optuna's own TPE."""

from __future__ import annotations

import random
import resource
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from nfbmr.errors import OutputError, TrackingError
from tune.search.history import ELITE, WINDOW, History, first_front
from tune.search.samplers import STARTUP
from tune.search.storage import SweepStorage
from tune.search.tpe import FlatTPESampler

SPACE = {
    "x": optuna.distributions.FloatDistribution(-2.0, 2.0),
    "n": optuna.distributions.IntDistribution(1, 64, log=True),
    "kind": optuna.distributions.CategoricalDistribution(("a", "b")),
    "only": optuna.distributions.CategoricalDistribution(("same",)),
}


def opened(path: Path) -> tuple[optuna.Study, SweepStorage]:
    storage = SweepStorage(path)
    study = optuna.create_study(study_name="made", storage=storage, load_if_exists=True)
    storage.follow("made", lambda trial: "from" not in trial.user_attrs)
    return study, storage


def opened_by_another(path: Path) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(path)))
    return optuna.create_study(study_name="made", storage=storage, load_if_exists=True)


def ask(study: optuna.Study, seed: int, sampler: type[FlatTPESampler] | None = None) -> optuna.Trial:
    options = {"seed": seed, "n_startup_trials": STARTUP, "constant_liar": True}
    study.sampler = (
        optuna.samplers.TPESampler(multivariate=True, **options)
        if sampler is None
        else sampler(SPACE, **options)
    )
    trial = study.ask()
    trial.suggest_float("x", -2.0, 2.0)
    trial.suggest_int("n", 1, 64, log=True)
    trial.suggest_categorical("kind", ("a", "b"))
    trial.suggest_categorical("only", ("same",))
    return trial


def value_of(trial: optuna.Trial | FrozenTrial) -> float:
    return float(trial.params["x"] ** 2 + trial.params["n"] / 64)


def made(number: int, value: float, state: TrialState = TrialState.COMPLETE) -> FrozenTrial:
    steps = {1: value} if state == TrialState.PRUNED else {}
    values = [value] if state == TrialState.COMPLETE else None
    trial = create_trial(state=state, values=values, intermediate_values=steps)
    trial.number = number
    return trial


def test_a_flat_space_is_searched_as_optunas_own_sampler_does(tmp_path: Path) -> None:
    ours, theirs = opened(tmp_path / "ours")[0], opened_by_another(tmp_path / "theirs")
    for seed in range(STARTUP + 8):
        pair = [ask(ours, seed, FlatTPESampler), ask(theirs, seed)]
        assert pair[0].params == pair[1].params
        for study, trial in zip((ours, theirs), pair, strict=True):
            study.tell(trial, value_of(trial))
    assert [t.params for t in ours.trials] == [t.params for t in theirs.trials]


def test_what_belongs_together_is_on_the_disk_at_its_end_and_not_before(tmp_path: Path) -> None:
    study, storage = opened(tmp_path / "journal")
    before = (tmp_path / "journal").read_bytes()
    with storage.together():
        trial = ask(study, 0)
        study.tell(trial, value_of(trial))
        assert study.trials[0].state == TrialState.COMPLETE
        assert (tmp_path / "journal").read_bytes() == before
    again = opened(tmp_path / "journal")[0]
    assert again.trials == study.trials


def test_what_was_written_until_an_error_stays_written(tmp_path: Path) -> None:
    study, storage = opened(tmp_path / "journal")

    def fail() -> None:
        with storage.together():
            ask(study, 0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert opened(tmp_path / "journal")[0].trials == study.trials


def test_a_note_that_another_program_makes_is_taken_in(tmp_path: Path) -> None:
    study, _ = opened(tmp_path / "journal")
    trial = ask(study, 0)
    opened_by_another(tmp_path / "journal").set_user_attr("note", 1)
    study.tell(trial, value_of(trial))
    assert study.user_attrs == {"note": 1}
    study.tell(ask(study, 1), 0.5)
    again, _ = opened(tmp_path / "journal")
    assert again.trials == study.trials
    assert again.user_attrs == {"note": 1}


def test_a_trial_that_another_program_adds_is_refused_before_numbers_mix_up(tmp_path: Path) -> None:
    study, _ = opened(tmp_path / "journal")
    trial = ask(study, 0)
    opened_by_another(tmp_path / "journal").ask()
    with pytest.raises(TrackingError, match=r"another program(.|\n)*--resume"):
        study.tell(trial, 1.0)
    assert [t.state.name for t in opened(tmp_path / "journal")[0].trials] == ["RUNNING", "RUNNING"]


def test_a_trial_that_another_program_ends_is_refused_before_values_part(tmp_path: Path) -> None:
    study, _ = opened(tmp_path / "journal")
    trial = ask(study, 0)
    opened_by_another(tmp_path / "journal").tell(trial.number, 0.7)
    with pytest.raises(TrackingError, match=r"changed trials(.|\n)*--resume"):
        study.tell(trial, 0.5)
    assert opened(tmp_path / "journal")[0].trials[0].value == 0.7


def test_a_full_disk_leaves_whole_lines_and_is_gone_on_from(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    study, _ = opened(path)
    trial = ask(study, 0)
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 9, limits[1]))
    try:
        with pytest.raises(OutputError, match="free some space"):
            study.tell(trial, 0.5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    ask(study, 1)
    assert opened(path)[0].trials == study.trials


def test_counts_follow_whatever_happens_to_trials(tmp_path: Path) -> None:
    study, storage = opened(tmp_path / "journal")
    study.enqueue_trial({"x": 0.5})
    assert storage.history.counts["WAITING"] == 1
    first, second, third = (ask(study, seed) for seed in range(3))
    study.tell(first, 1.0)
    study.tell(second, state=TrialState.FAIL)
    study.add_trial(create_trial(value=0.1, user_attrs={"from": "elsewhere"}))
    _, again = opened(tmp_path / "journal")
    for history in (storage.history, again.history):
        assert +history.counts == {"COMPLETE": 1, "FAIL": 1, "RUNNING": 1}
        assert history.numbers("RUNNING") == [third.number]


def test_the_window_has_the_best_and_is_the_same_in_whatever_order_trials_end() -> None:
    draw = random.Random(0)
    trials = [made(number, draw.random()) for number in range(WINDOW + 90)]
    trials += [made(len(trials), 0.0, TrialState.FAIL)]
    windows = []
    for _ in range(2):
        history = History([False], lambda _: True)
        for trial in trials:
            history.update(trial)
        windows.append([trial.number for trial in history.window()])
        draw.shuffle(trials)
    assert windows[0] == windows[1] == sorted(set(windows[0]))
    assert len(windows[0]) == WINDOW
    complete = sorted((t for t in trials if t.state == TrialState.COMPLETE), key=lambda t: t.values[0])
    assert {t.number for t in complete[:ELITE]} <= set(windows[0])


def test_up_to_its_size_the_window_is_all_there_is() -> None:
    history = History([True], lambda _: True)
    for number in range(WINDOW):
        history.update(made(number, number / 7))
    assert [trial.number for trial in history.window()] == list(range(WINDOW))
    assert not history.overflows


def test_good_trials_are_the_best_tenth_up_to_as_many_as_optuna_takes() -> None:
    history = History([True], lambda _: True)
    assert history.good() == []
    for number in range(WINDOW):
        history.update(made(number, float(number % 97)))
        if number == 19:
            assert history.good() == [19, 18]
    assert len(history.good()) == ELITE
    assert {number % 97 for number in history.good()[:3]} == {96}


def test_pruned_trials_are_looked_at_where_few_have_finished() -> None:
    history = History([True], lambda _: True)
    for number in range(WINDOW + 50):
        state = TrialState.COMPLETE if number % 100 == 7 else TrialState.PRUNED
        history.update(made(number, number / 1000, state))
    numbers = [trial.number for trial in history.window()]
    assert {7, 107, 207} <= set(numbers)
    assert set(range(WINDOW + 50 - 15, WINDOW + 50)) <= set(numbers)


def test_the_window_of_several_objectives_has_their_front() -> None:
    history = History([True, False], lambda _: True)
    trials = []
    for number in range(WINDOW + 200):
        angle = number / 40
        trial = create_trial(values=[np.sin(angle) * (number % 5), np.cos(angle) * (number % 7)])
        trial.number = number
        trials.append(trial)
        history.update(trial)
    losses = np.array([[-t.values[0], t.values[1]] for t in trials])
    front = set(first_front(losses).tolist())
    beaten = [any((other <= own).all() and (other < own).any() for other in losses) for own in losses]
    assert front == {i for i, lost in enumerate(beaten) if not lost}
    assert len(front) < ELITE
    assert front <= {trial.number for trial in history.window()}


def test_what_is_suggested_beyond_the_window_depends_on_the_journal_alone(tmp_path: Path) -> None:
    study, storage = opened(tmp_path / "journal")
    draw = random.Random(1)
    with storage.together():
        for _ in range(WINDOW + 30):
            params = {"x": draw.uniform(-2, 2), "n": draw.randint(1, 64), "kind": "a", "only": "same"}
            study.add_trial(create_trial(params=params, distributions=SPACE, value=draw.random()))
    suggested = []
    for _ in range(2):
        study, storage = opened(tmp_path / "journal")
        with storage.narrowed():
            assert len(study.get_trials(deepcopy=False)) == WINDOW
            trial = ask(study, 5, FlatTPESampler)
        suggested.append(trial.params)
        assert len(study.get_trials(deepcopy=False)) == trial.number + 1
        study.tell(trial, state=TrialState.FAIL)
    assert suggested[0] == suggested[1]
