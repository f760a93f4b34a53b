"""Which trials cannot be told from the best: by what parts they share, else by the best one's interval."""

from __future__ import annotations

import optuna

from nfbmr.paths import RunPaths, write_json
from tests.summaries import sweep_summary
from tune.records.parent import table_alone
from tune.records.paths import SweepPaths
from tune.search.trust import trust_of

PARTS = [f"part {i}" for i in range(10)]


def finished(values: list[float], width: float | None = 0.1) -> list[optuna.trial.FrozenTrial]:
    trials = []
    for number, value in enumerate(values):
        interval = {} if width is None else {"low": value - width / 2, "high": value + width / 2}
        trial = optuna.trial.create_trial(
            value=value, user_attrs={"validation": {"value": value, **interval}}
        )
        trial.number = number
        trials.append(trial)
    return trials


def keep(paths: SweepPaths, number: int, *, spoiled: int) -> None:
    """What each part adds to a trial's AUROC: one part is ranked wrongly, which costs 0.03."""
    values = dict.fromkeys(PARTS, 0.003)
    values[PARTS[spoiled]] -= 0.03
    write_json(RunPaths(paths.trial(number)).influence, values)


def test_trials_with_the_same_mistakes_are_told_apart_where_their_intervals_would_not(tmp_path):
    paths = SweepPaths(tmp_path / "tiles")
    trials = finished([0.95, 0.94, 0.94])
    for number, spoiled in enumerate((0, 0, 1)):
        keep(paths, number, spoiled=spoiled)
    trust = trust_of(paths, trials, trials[0], 0.95)
    # 1 ranks as 0 does but for a constant; 2 ranks another part wrongly, by more than the difference.
    assert trust.near == (0, 2)
    assert trust.error == "paired"
    assert "2 of 3 finished trials cannot be told from the best" in trust.sentence
    assert trust.sentence.endswith("the choice among them is a guess.")


def test_without_what_parts_add_the_interval_of_the_best_decides(tmp_path):
    paths = SweepPaths(tmp_path / "tiles")
    trials = finished([0.89, 0.95, 0.93, 0.88])  # of 95 %, 0.1 wide: a standard error of 0.0255
    trust = trust_of(paths, trials, trials[1], 0.95)
    assert trust.near == (1, 2)
    assert trust.error == "interval"
    keep(paths, 1, spoiled=0)
    keep(paths, 2, spoiled=0)
    mixed = trust_of(paths, trials, trials[1], 0.95)
    assert mixed.near == (1,)  # told apart by their parts
    assert mixed.error == "interval"


def test_other_parts_cannot_be_paired(tmp_path):
    paths = SweepPaths(tmp_path / "tiles")
    trials = finished([0.95, 0.94])
    keep(paths, 0, spoiled=0)
    write_json(RunPaths(paths.trial(1)).influence, {"another part": 0.0})
    assert trust_of(paths, trials, trials[0], 0.95).error == "interval"


def test_a_lead_a_single_trial_and_no_interval_are_said_as_they_are(tmp_path):
    paths = SweepPaths(tmp_path / "tiles")
    apart = finished([0.95, 0.5])
    assert "leads the others by over two standard errors" in trust_of(paths, apart, apart[0], 0.95).sentence
    assert "nothing to choose among" in trust_of(paths, apart[:1], apart[0], 0.95).sentence
    blind = finished([0.95, 0.95, 0.9], None)
    trust = trust_of(paths, blind, blind[0], 0.95)
    assert (trust.near, trust.error) == ((0, 1), None)
    assert "is not known" in trust.sentence


def test_trials_at_the_end_of_the_scale_are_all_as_good(tmp_path):
    paths = SweepPaths(tmp_path / "tiles")
    trials = finished([1.0, 1.0, 1.0], 0.0)
    for number in range(3):
        write_json(RunPaths(paths.trial(number)).influence, dict.fromkeys(PARTS, 0.0))
    assert trust_of(paths, trials, trials[0], 0.95).near == (0, 1, 2)


def test_where_there_is_nothing_to_say_nothing_is_said():
    summary = sweep_summary()
    assert summary.notes == []
    assert summary.labels == {}
    assert summary.failures is None


def test_failures_are_counted_and_the_first_is_told():
    errors = {"0001": "a loss that is not finite\nat epoch 3", "0003": "no such tap"}
    assert sweep_summary(errors=errors).failures == (
        "2 of 8 trials failed (0001, 0003), the first with: a loss that is not finite"
    )


def test_notes_stand_below_the_table():
    assert table_alone("| a |\n|---|\n| 1 |\n\nA note.\n\nAnother.\n") == "| a |\n|---|\n| 1 |\n"
    assert table_alone("| a |\n|---|\n") == "| a |\n|---|\n"
    assert table_alone("") == ""
