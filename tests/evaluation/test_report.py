"""The report: everything in it, nothing from outside, nothing that runs."""

import os
from html.parser import HTMLParser

import pytest
from PIL import Image

from nfbmr.config import Config
from nfbmr.errors import OutputError
from nfbmr.evaluation.report import write_report
from nfbmr.evaluation.summary import RunSummary

EVIL = "<script>alert('x')</script> & \"quoted\"\n傷 \u202egnp.exe"
VOID = {"meta", "img", "rect", "br", "link"}


class Page(HTMLParser):
    """Tags with their attributes, and the text a reader sees; fails where tags do not nest."""

    def __init__(self, source):
        super().__init__()
        self.tags: list = []
        self.texts: list = []
        self.open: list = []
        self.feed(source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "title"} & set(self.open):
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def estimate(value, low=None, high=None):
    return {"value": value, "low": low, "high": high}


def summary(**changes):
    return {
        "run_id": "20261123-nf-bmr-ab12",
        "run_dir": "runs/20261123-nf-bmr-ab12",
        "method": "nf-bmr",
        "split": "group",
        "seed": 3,
        "dataset": {
            "name": "mtd",
            "digest": "c0ffee",
            "counts": {"train": {"good": 610, "defective": 0}, "test": {"good": 190, "defective": 392}},
        },
        "test_peeked": False,
        "leak": None,
        "metrics": {
            "test": {
                "image_auroc": estimate(0.8594, 0.8301, 0.8842),
                "image_recall": estimate(0.5),
                "pixel_aupro": estimate(None),
                "image_auroc/crack": estimate(0.91, 0.9, 0.95),
                "image_recall/crack": estimate(0.75, 0.5, 1.0),
            },
            "validation": {"image_auroc": estimate(0.97, 0.95, 0.99)},
        },
        "kinds": {"good": 190, "crack": 57},
        "selection": {
            "on": "validation",
            "auroc": 0.97,
            "parts": ["source", "target", "norm"],
            "weights": [0.5, 0.5, 0.0],
            "reduction": "topk",
            "false_reject_rate": 0.05,
            "epochs": {"flow": 18},
            "candidates": [{"weights": [0.5, 0.5, 0.0], "reduction": "topk", "auroc": 0.97}],
        },
        "threshold": 4.0257,
        "timings": {"features": 48.2, "flow": 312.0},
        "config": Config().model_dump(mode="json"),
        "environment": {"python": "3.11.9", "packages": {"torch": "2.15.0"}, "gpus": []},
        **changes,
    }


def report(tmp_path, pictures=(), **changes):
    path = tmp_path / "report.html"
    write_report(RunSummary.from_json(summary(**changes)), pictures, path)
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "roc.png"
    Image.new("RGB", (8, 6), "white").save(path)
    return path


def test_the_headline_and_every_number_stand_in_it(tmp_path):
    text = report(tmp_path).text
    for part in [
        "0.859", "95 % interval 0.830 to 0.884", "mtd", "group", "190 good, 392 defective", "4.026",
        "AUPRO undefined", "crack 57 0.910 [0.900, 0.950]", "0.750 [0.500, 1.000]", "0.970 [0.950, 0.990]",
        "topk", "5 min 12 s", "6 min 0 s", "flow.blocks 4", "packages.torch 2.15.0", "gpus none",
    ]:  # fmt: skip
        assert part in text


def test_it_asks_nothing_of_the_network_and_runs_nothing(tmp_path, picture):
    page = report(tmp_path, [("ROC curve", picture, "Image AUROC 0.859.")])
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base", "form"}
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "srcset", "action"):
            assert attributes.get(name, "data:").startswith("data:")
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "http:" not in source
    assert "https:" not in source
    assert "url(" not in source


def test_names_cannot_become_markup_or_disguise_themselves(tmp_path, picture):
    page = report(
        tmp_path,
        [(EVIL, picture, EVIL)],
        method=EVIL,
        leak=EVIL,
        notes=[EVIL],
        unreadable={EVIL: EVIL},
        dataset={"name": EVIL, "source": EVIL, "counts": {EVIL: {EVIL: 3}}},
        metrics={"test": {f"image_auroc/{EVIL}": estimate(0.5)}},
        config={**Config().model_dump(mode="json"), "method": EVIL, "own": {EVIL: EVIL}},
        environment={EVIL: EVIL},
        timings={EVIL: 1.0},
        selection={**summary()["selection"], "on": EVIL, "reduction": EVIL, "epochs": {EVIL: 1}},
        reused={EVIL: True},
    )
    assert "script" not in {tag for tag, _ in page.tags}
    shown = EVIL.replace("\n", "\\n").replace("\u202e", "\\u202e")
    assert shown in page.text
    assert next(a for t, a in page.tags if t == "img")["alt"] == f"{shown}. {shown}"


def test_a_file_name_that_is_no_text_is_shown_as_escapes(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    assert r"caf\xe9.png" in report(tmp_path, unreadable={name: "truncated"}).text


def test_pictures_are_inside_with_words_for_those_who_cannot_see_them(tmp_path, picture):
    page = report(tmp_path, [("ROC curve", picture, "A caption."), ("Lost", tmp_path / "no.png", "Gone.")])
    images = [a for t, a in page.tags if t == "img"]
    assert [image["alt"] for image in images] == ["ROC curve. A caption."]
    assert images[0]["src"].startswith("data:image/png;base64,")
    assert "This picture is missing." in page.text


def test_banners_stand_only_where_they_belong(tmp_path):
    plain = report(tmp_path).text.lower()
    assert "peeked" not in plain
    assert "leaks" not in plain
    selection = {**summary()["selection"], "on": "test"}
    warned = report(
        tmp_path,
        test_peeked=True,
        leak="Nine in ten have a twin.",
        selection=selection,
        unreadable={"a": "b"},
    ).text
    assert "Test-peeked." in warned
    assert "Nine in ten have a twin." in warned
    assert "1 test image could not be read" in warned


def test_an_undefined_headline_says_what_it_takes(tmp_path):
    text = report(tmp_path, metrics={"test": {"image_auroc": estimate(None)}}).text
    assert "it takes good and defective test images" in text


def test_a_summary_with_almost_nothing_in_it_is_still_a_page(tmp_path):
    text = report(tmp_path, metrics={}, timings={}, kinds={}, environment={}, dataset={"name": "parts"}).text
    assert "Image AUROC" in text


def test_a_report_that_cannot_be_written_is_the_users_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_report(RunSummary.from_json(summary()), (), tmp_path / "file" / "report.html")
