"""Pictures: that they are drawn from whatever data there is, look the same each time, and disturb nobody."""

import math
import threading

import numpy as np
import pytest
from PIL import Image

from nfbmr.config import EvaluationConfig
from nfbmr.data.samples import GOOD
from nfbmr.errors import OutputError
from nfbmr.evaluation import embedding, figures, style
from nfbmr.evaluation.evaluation import Scores, evaluate
from nfbmr.evaluation.figures import StageCurve
from nfbmr.evaluation.intervals import UNDEFINED, Estimate

AWKWARD = '_傷 $x^2$ <b>\nline & "quoted"'
SETS = {
    "several kinds": (GOOD,) * 12 + ("crack",) * 8 + (AWKWARD,) * 6,
    "one kind": (GOOD,) * 12 + ("crack",) * 8,
    "no defects": (GOOD,) * 12,
    "no good": ("crack",) * 3,
    "one image each": (GOOD, "crack"),
    "more kinds than colours": (GOOD,) * 3 + tuple(f"kind {i}" for i in range(14)),
    "nothing": (),
}


def scores_of(kinds, seed=0):
    rng = np.random.default_rng(seed)
    score = np.array([rng.normal() + (kind != GOOD) for kind in kinds])
    return Scores(tuple(str(i) for i in range(len(kinds))), tuple(kinds), score)


def size(path):
    with Image.open(path) as image:
        image.load()
        return image.size


@pytest.mark.parametrize("kinds", SETS.values(), ids=SETS)
def test_every_picture_of_scores_is_drawn_from_any_test_set(kinds, tmp_path):
    scores = scores_of(kinds)
    estimates = evaluate(scores, 0.5, EvaluationConfig(bootstrap=20), 0)
    about = {"threshold": 0.5, "caption": f"{AWKWARD}, split group, seed 0, test-peeked"}
    drawn = [
        figures.roc(scores, tmp_path / "roc.png", auroc=estimates["image_auroc"], **about),
        figures.precision_recall(scores, tmp_path / "pr.png", ap=estimates["image_ap"], **about),
        figures.histogram(scores, tmp_path / "scores.png", **about),
        figures.defect_bars(estimates, tmp_path / "kinds.png", caption=AWKWARD),
    ]
    for path in drawn:
        width, height = size(path)
        assert 300 < width < 3000
        assert 200 < height < 3000


def test_pictures_do_without_a_threshold(tmp_path):
    scores = scores_of(SETS["several kinds"])
    figures.roc(scores, tmp_path / "roc.png", auroc=UNDEFINED)
    figures.precision_recall(scores, tmp_path / "pr.png", ap=UNDEFINED)
    figures.histogram(scores, tmp_path / "scores.png")


@pytest.mark.parametrize("score", [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [1e-9, 1.0, 1e9], [-5.0, 0.0, 1e-300]])
def test_a_histogram_takes_scores_of_any_spread(score, tmp_path):
    scores = Scores(("a", "b", "c"), (GOOD, GOOD, "crack"), np.array(score))
    size(figures.histogram(scores, tmp_path / "scores.png", threshold=score[1]))


def test_the_same_data_give_the_same_bytes(tmp_path):
    scores = scores_of(SETS["several kinds"])
    for name in ("a.png", "b.png"):
        figures.roc(scores, tmp_path / name, auroc=Estimate(0.8, 0.7, 0.9), seed=1)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_losses_are_drawn_with_and_without_validation(tmp_path):
    flow = StageCurve("flow", [1, 2, 3], [3.0, 2.0, 1.5], selected=2, validation={2: 0.8})
    mapping = StageCurve("mapping", [1], [0.3])
    for stages in ([flow, mapping], [mapping], []):
        size(figures.losses(stages, tmp_path / f"losses-{len(stages)}.png"))


@pytest.mark.parametrize("n", [1, 2, 5, 40])
def test_tsne_places_many_images_and_few(n, tmp_path):
    rng = np.random.default_rng(0)
    kinds = [GOOD if i % 2 else "crack" for i in range(n)]
    features = {
        "S": rng.normal(size=(n, 70)),
        "T": rng.normal(size=(n, 1)),
        "NF": np.ones((n, 4), np.float16),
    }
    assert size(embedding.tsne(features, kinds, tmp_path / "tsne.png", caption="mtd"))[0] > 1000


def test_tsne_samples_when_there_are_more_images_than_asked_for(tmp_path):
    features = {"S": np.random.default_rng(0).normal(size=(60, 8))}
    size(embedding.tsne(features, [GOOD] * 30 + ["crack"] * 30, tmp_path / "tsne.png", most=10))


def test_a_kind_has_one_colour_and_one_marker_in_all_pictures():
    everything, some = ["good", "a", "b"], ["b", "a"]
    assert style.colours(some) == style.colours(everything)
    assert len(set(style.colours(everything).values())) == 3
    assert len(set(style.markers(everything).values())) == 3


def test_names_that_no_font_can_show_stay_different():
    one, other = style.lettering("\U00012000"), style.lettering("\U00012001")
    assert one != other
    assert one.isascii()


def test_pictures_are_drawn_beside_each_other_and_leave_matplotlib_as_it_was(tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    scores, failed = scores_of(SETS["several kinds"]), []

    def draw(i):
        try:
            figures.roc(scores, tmp_path / f"{i}.png", auroc=Estimate(0.8, 0.7, 0.9))
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=draw, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len({(tmp_path / f"{i}.png").read_bytes() for i in range(4)}) == 1
    assert dict(matplotlib.rcParams) == before


def test_a_folder_that_cannot_be_written_is_the_users_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        figures.defect_bars(
            {"image_auroc": Estimate(0.8, math.nan, math.nan)}, tmp_path / "file" / "kinds.png"
        )
