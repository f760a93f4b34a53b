"""From scored images to all metrics."""

import json
from statistics import NormalDist

import numpy as np
import pytest

from nfbmr.config import EvaluationConfig
from nfbmr.errors import NfbmrError
from nfbmr.evaluation import metrics
from nfbmr.evaluation.evaluation import TITLES, Scores, evaluate
from nfbmr.evaluation.intervals import auroc_interval

QUICK = EvaluationConfig(bootstrap=100)


def some_scores(seed=0, kinds=("good",) * 30 + ("crack",) * 20 + ("break",) * 10, groups=None):
    rng = np.random.default_rng(seed)
    shift = {"good": 0.0, "crack": 1.0, "break": 2.5}
    score = np.array([rng.normal(shift[kind]) for kind in kinds])
    return Scores(tuple(f"{i}.png" for i in range(len(kinds))), tuple(kinds), score, groups)


def test_every_metric_has_its_name_and_an_interval_around_it():
    estimates = evaluate(some_scores(), 1.0, QUICK, 0)
    per_kind = {f"image_{what}/{kind}" for what in ("auroc", "recall") for kind in ("crack", "break")}
    assert set(estimates) == {name for name in TITLES if name.startswith("image_")} | per_kind
    for estimate in estimates.values():
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    json.dumps({name: estimate.as_json() for name, estimate in estimates.items()}, allow_nan=False)


def test_a_kind_is_measured_against_all_good_images():
    scores = some_scores()
    estimates = evaluate(scores, 1.0, QUICK, 0)
    rows = [i for i, kind in enumerate(scores.defects) if kind in ("good", "break")]
    alone = evaluate(scores.take(rows), 1.0, QUICK, 0)
    assert estimates["image_auroc/break"] == alone["image_auroc"]
    assert estimates["image_recall/break"] == alone["image_recall"]
    assert estimates["image_auroc/break"].value > estimates["image_auroc/crack"].value


def test_a_part_is_rejected_above_the_threshold_not_at_it():
    scores = Scores(("a", "b", "c"), ("good", "crack", "crack"), np.array([1.0, 1.0, 2.0]))
    estimates = evaluate(scores, 1.0, QUICK, 0)
    assert estimates["image_false_reject_rate"].value == 0
    assert estimates["image_recall"].value == 0.5


def test_shares_of_few_images_have_the_exact_interval_also_where_none_or_all_are_rejected():
    """A bootstrap of nothing but hits has no width, as if six images told what a thousand would."""
    kinds = ("good",) * 6 + ("crack",) * 8
    scores = Scores(tuple(map(str, range(14))), kinds, np.array([0.0] * 6 + [2.0] * 8))
    estimates = evaluate(scores, 1.0, QUICK, 0)
    assert f"{estimates['image_false_reject_rate']:.3f}" == "0.000 [0.000, 0.459]"
    assert f"{estimates['image_precision']:.3f}" == "1.000 [0.631, 1.000]"
    assert (
        f"{estimates['image_recall']:.3f}"
        == f"{estimates['image_recall/crack']:.3f}"
        == "1.000 [0.631, 1.000]"
    )


def test_an_auroc_of_one_is_no_certainty():
    """Nor is one near it: a bootstrap then draws hardly any two images that change places."""
    kinds = ("good",) * 50 + ("crack",) * 42 + ("dent",) * 8
    perfect = Scores(tuple(map(str, range(100))), kinds, np.array([0.0] * 50 + [2.0] * 50))
    estimates = evaluate(perfect, 1.0, QUICK, 0)
    assert f"{estimates['image_auroc']:.3f}" == "1.000 [0.960, 1.000]"
    assert f"{estimates['image_auroc/dent']:.3f}" == "1.000 [0.857, 1.000]"
    nearly = Scores(perfect.names, kinds, np.array([0.0] * 49 + [3.0] + [2.0] * 50))
    assert evaluate(nearly, 1.0, QUICK, 0)["image_auroc"].low < 0.94
    none = evaluate(perfect, 1.0, QUICK.model_copy(update={"bootstrap": 0}), 0)["image_auroc"]
    assert not none.has_interval


@pytest.mark.parametrize(
    ("separation", "good", "defective"), [(2.0, 50, 8), (3.3, 50, 70), (3.3, 20, 20), (1.0, 60, 40)]
)
def test_intervals_of_an_auroc_hold_the_truth_as_often_as_they_say(separation, good, defective):
    truth = NormalDist().cdf(separation / 2**0.5)
    rng = np.random.default_rng(0)
    labels = np.arange(good + defective) >= good
    held = 0
    for _ in range(300):
        scores = rng.normal(size=good + defective) + separation * labels
        auroc = metrics.point(metrics.auroc(scores, labels), good + defective)
        interval = auroc_interval(auroc, good, defective)
        held += interval.low <= truth <= interval.high
    assert held / 300 > 0.93


def test_shares_count_parts_where_several_images_show_one():
    once = Scores(("a", "b", "c"), ("good", "good", "crack"), np.array([0.0, 2.0, 2.0]))
    many = once.take(np.repeat(np.arange(3), 5))
    grouped = Scores(tuple(map(str, range(15))), many.defects, many.score, many.names)
    for name in ("image_false_reject_rate", "image_recall"):
        assert evaluate(grouped, 1.0, QUICK, 0)[name] == evaluate(once, 1.0, QUICK, 0)[name]


def test_groups_widen_the_intervals_of_images_that_repeat_each_other():
    once = some_scores()
    many = once.take(np.repeat(np.arange(len(once)), 5))
    groups = tuple(many.names)
    grouped = Scores(tuple(f"{i}" for i in range(len(many))), many.defects, many.score, groups)
    alone = Scores(grouped.names, many.defects, many.score)
    wide, narrow = (evaluate(s, 1.0, QUICK, 0)["image_auroc"] for s in (grouped, alone))
    assert wide.value == pytest.approx(narrow.value)
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_pixel_metrics_come_where_there_are_maps_and_masks():
    scores = some_scores(kinds=("good",) * 4 + ("crack",) * 4)
    rng = np.random.default_rng(0)
    map_NHW = rng.random((8, 6, 6), dtype=np.float32)
    mask = np.zeros((30, 40), dtype=bool)
    mask[5:15, 10:20] = True
    map_NHW[4:, 1:3, 2:3] += 1
    masks = dict.fromkeys(range(4, 8), mask)
    estimates = evaluate(scores, 0.5, QUICK, 0, maps_NHW=map_NHW, masks=masks.get)
    assert estimates["pixel_auroc"].value > 0.8
    assert estimates["pixel_aupro"].low <= estimates["pixel_aupro"].value <= estimates["pixel_aupro"].high
    assert "pixel_auroc" not in evaluate(scores, 0.5, QUICK, 0, maps_NHW=map_NHW, masks=lambda _: None)
    assert "pixel_auroc" not in evaluate(scores, 0.5, QUICK, 0)


def test_pixel_intervals_keep_groups_with_the_right_images():
    # Histograms put defective images first; grouping must follow the images, not the rows.
    groups = ("a", "a", "b", "b", "c", "c", "d", "d")
    scores = Scores(tuple("01234567"), ("good", "crack") * 4, np.arange(8.0), groups)
    maps = np.random.default_rng(0).random((8, 5, 5)).astype(np.float32)
    mask = np.eye(20, dtype=bool)

    def masks(i):
        return mask if i % 2 else None

    estimate = evaluate(scores, 0.5, QUICK, 3, maps_NHW=maps, masks=masks)["pixel_auroc"]
    order = [1, 3, 5, 7, 0, 2, 4, 6]
    again = evaluate(
        scores.take(order), 0.5, QUICK, 3, maps_NHW=maps[order], masks=lambda i: masks(order[i])
    )["pixel_auroc"]
    assert estimate == again


@pytest.mark.parametrize(
    ("kinds", "defined"),
    [
        (("good",) * 5, {"image_false_reject_rate"}),
        (("crack",) * 5, {"image_recall", "image_recall/crack"}),
        ((), set()),
    ],
)
def test_what_the_images_do_not_determine_is_undefined_and_a_note_says_why(kinds, defined):
    scores = some_scores(kinds=kinds)
    estimates = evaluate(scores, -5.0, QUICK, 0)
    assert {name for name, e in estimates.items() if e.defined} == defined
    assert not estimates["image_auroc"].defined
    assert scores.notes()


def test_enough_images_of_both_classes_need_no_note():
    assert some_scores().notes() == ()


def test_without_a_threshold_only_the_rankings_are_defined():
    estimates = evaluate(some_scores(), float("nan"), QUICK, 0)
    assert estimates["image_auroc"].defined
    assert estimates["image_ap"].defined
    assert not any(estimates[name].defined for name in ("image_f1", "image_recall", "image_recall/crack"))


def test_scores_that_are_no_numbers_are_refused_with_the_image_named():
    with pytest.raises(NfbmrError, match=r"1 of 2 scores.*b\.png"):
        Scores(("a.png", "b.png"), ("good", "good"), np.array([1.0, np.inf]))


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="different lengths"):
        Scores(("a",), ("good", "good"), np.array([1.0, 2.0]))


def test_the_order_of_the_images_does_not_matter_to_the_values():
    scores = some_scores()
    turned = scores.take(np.arange(len(scores))[::-1])
    one, other = (evaluate(s, 1.0, EvaluationConfig(bootstrap=0), 0) for s in (scores, turned))
    assert {k: e.value for k, e in one.items()} == pytest.approx({k: e.value for k, e in other.items()})
    assert metrics.point(metrics.auroc(scores.score, scores.labels), 60) == one["image_auroc"].value
