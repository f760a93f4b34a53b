"""The table of an ablation reads back as what it was made of, in three formats and as pictures."""

from __future__ import annotations

import csv
import io
import math
import os
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nfbmr.errors import ConfigError
from nfbmr.evaluation.intervals import Estimate
from tune.ablation.reference_datasets import BENCHMARKS
from tune.ablation.spec import METRICS, Published, load_spec, named_tables, parse_spec, read_spec
from tune.tables.cell_scores import CellScores
from tune.tables.figures import draw
from tune.tables.frame import CSV_COLUMNS, csv_text, results_of, write_results
from tune.tables.statistics import Comparison
from tune.tables.table import Entry, Line, Table, interval, latex, markdown, percent


def table(rows=("a & b", "plain_row"), parts=("x", "y"), *, missing=None, published=True):
    rng = np.random.default_rng(0)
    defective = np.arange(30) < 15
    cells = [
        CellScores(row, part, seed, [f"{i}" for i in range(30)], defective, score, score > 1)
        for n, row in enumerate(rows)
        for part in parts or (None,)
        for seed in range(2)
        if (score := rng.normal(size=30) + (2.0 - n) * defective) is not None
    ]
    lines = []
    for row in rows:
        entries = {}
        for metric in METRICS:
            comparison = Comparison(cells, metric, resamples=40)
            entries[metric] = {
                part: Entry(
                    comparison.mean(row, chosen),
                    None if row == rows[0] else comparison.difference(row, rows[0], chosen),
                    int(bool(missing) and part is None),
                )
                for part, chosen in ((None, None), *((p, [p]) for p in parts))
            }
        said = Published(0.974, "A paper, Table 5", "another protocol")
        given_ = {"image_auroc": {None: said}} if published else {}
        lines.append(Line(row, entries, given_))
    return Table(
        name="toy",
        title="Toys | 50 % of them",
        about="mvtec, split official",
        metric="image_auroc",
        reference=rows[0],
        lines=tuple(lines),
        categories=tuple(parts),
        notes=("A note.",),
        missing=missing or {},
    )


def grids(text):
    """Tables of a Markdown text: lists of rows of cells."""
    found, rows = [], []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif rows:
            found.append(rows)
            rows = []
    return found


def test_markdown_holds_every_row_and_part_in_tables_of_even_width():
    made = table()
    main, parts, others = grids(markdown(made))
    for grid in (main, parts, others):
        assert len({len(row) for row in grid}) == 1
    assert [row[0] for row in main[2:]] == ["a & b", "plain_row"]
    assert main[2][4] == "reference"
    assert main[3][4] in ("better", "worse", "tie")
    assert main[3][1] == interval(made.entry(made.lines[1]).mean.estimate)
    assert main[3][-2:] == ["97.4", "A paper, Table 5"]
    assert [row[0] for row in parts[2:]] == ["x", "y", "mean"]
    assert "A note." in markdown(made)


def test_missing_cells_are_marked_and_their_reason_is_given():
    made = table(missing={"a & b/x/seed-1": "the loss ran away"})
    text = markdown(made)
    assert "the loss ran away" in text
    assert grids(text)[0][2][1].endswith("*")
    assert "the loss ran away" in latex(made)
    assert "*" not in markdown(table())


def test_csv_is_tidy_and_gives_the_numbers_back():
    made = table()
    rows = list(csv.DictReader(io.StringIO(csv_text(made))))
    assert set(rows[0]) == set(CSV_COLUMNS)
    assert len(rows) == len(made.lines) * len(METRICS) * 3
    (one,) = (r for r in rows if (r["row"], r["part"], r["metric"]) == ("plain_row", "y", "image_auroc"))
    entry = made.entry(made.lines[1], "y")
    assert float(one["value"]) == pytest.approx(entry.mean.estimate.value, abs=1e-6)
    assert float(one["difference_low"]) == pytest.approx(entry.difference.estimate.low, abs=1e-6)
    published = [r for r in rows if r["published"]]
    assert {(r["part"], r["metric"]) for r in published} == {("all", "image_auroc")}


def test_the_frame_has_a_line_for_each_number_and_reads_back(tmp_path):
    import pyarrow.parquet as pq

    made = table()
    settings = {"plain_row": {"flow.blocks": 2}}
    write_results(tmp_path / "results.parquet", results_of(made, settings, "official"))
    rows = pq.read_table(tmp_path / "results.parquet").to_pylist()
    means = [row for row in rows if row["seed"] is None]
    assert len(means) == len(made.lines) * len(METRICS) * 3
    defined = sum(row["value"] is not None for row in means)
    assert len(rows) == len(means) + 2 * defined  # one for each of two seeds
    (mean,) = (
        row for row in means
        if (row["row"], row["category"], row["metric"]) == ("plain_row", "y", "image_auroc")
    )  # fmt: skip
    entry = made.entry(made.lines[1], "y")
    assert (mean["value"], mean["low"]) == (entry.mean.estimate.value, entry.mean.estimate.low)
    assert mean["difference_high"] == entry.difference.estimate.high
    assert (mean["split"], mean["breakdown"], mean["reference"]) == ("official", "category", "a & b")
    assert mean["settings"] == '{"flow.blocks": 2}'
    seeds = {
        row["seed"]: row["value"]
        for row in rows
        if (row["row"], row["category"], row["metric"]) == ("plain_row", "y", "image_auroc")
        and row["seed"] is not None
    }
    assert seeds == dict(enumerate(entry.mean.values))
    whole = [row for row in means if row["category"] is None and row["row"] == "a & b"]
    assert all(row["difference"] is None and row["verdict"] is None for row in whole)
    assert [row["published"] for row in whole if row["metric"] == "image_auroc"] == [0.974]


def test_names_that_are_no_text_can_be_written(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    write_results(tmp_path / "results.parquet", results_of(table(rows=(name, "b"), parts=()), {}))
    assert (tmp_path / "results.parquet").exists()


def test_latex_is_balanced_and_escaped():
    text = latex(table())
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert r"a \& b" in body
    assert r"plain\_row" in body
    assert r"50 \% of them" in body
    assert body.count("{") == body.count("}")
    assert body.count(r"\begin") == body.count(r"\end") == 2
    (alignment,) = re.findall(r"\{(lr+)\}", body)
    for line in body.splitlines():
        if line.endswith(r"\\"):
            assert len(re.split(r"(?<!\\)&", line)) == len(alignment)


@given(st.floats(-1, 1))
def test_percent_never_prints_a_negative_zero(share):
    assert percent(share, sign=True) not in ("+0.0", "−0.0", "-0.0")
    assert float(percent(share).replace("−", "-")) == pytest.approx(100 * share, abs=0.0501)


def test_undefined_numbers_are_dashes():
    assert percent(math.nan) == "–"
    assert interval(Estimate(0.5, math.nan, math.nan)) == "50.0"


def test_pictures_are_drawn_for_what_there_is(tmp_path):
    drawn = draw(table(missing={"a & b/x/seed-1": "gone"}), tmp_path)
    assert [path.name for path in drawn] == ["bars.png", "differences.png", "lines.png"]
    for path in drawn:
        with Image.open(path) as image:
            assert min(image.size) > 200
    alone = draw(table(rows=("only",), parts=(), published=False), tmp_path / "alone")
    assert [path.name for path in alone] == ["bars.png"]


# -- what rows are made of


def test_the_named_table_is_the_papers():
    spec = load_spec("paper-table5")
    assert [row.name for row in spec.rows] == ["n=1", "n=2", "n=3", "NF + B-PFM", "NF alone"]
    assert [row.reported("image_auroc").value for row in spec.rows] == [0.974, 0.987, 0.985, 0.962, 0.942]
    assert spec.reference == "n=2"
    assert {"paper-table5", "paper-fig10"} < set(named_tables())


MVTEC, DAGM = 15, 10
PAPERS = {
    # As section 4.3, 4.4 and the abstract of Zhang et al. 2024 say them; typed once more, not copied.
    "paper-table1": {
        ("NF-BMR", "image_auroc", None): 98.7,
        ("NF-BMR", "image_auroc", "textures"): 99.4,
        ("NF-BMR", "image_auroc", "objects"): 98.3,
        ("MB-PFM", "image_auroc", None): 98.7 - 1.2,
        ("DifferNet", "image_auroc", None): 94.9,
        ("DifferNet", "image_auroc", "bottle"): 99,
        ("DifferNet", "image_auroc", "carpet"): 92.9,
    },
    "paper-table2": {
        ("NF-BMR", "image_precision", None): 97.5,
        ("NF-BMR", "image_recall", None): 97.0,
        ("NF-BMR", "image_f1", None): 97.2,
    },
    "paper-table3": {
        ("NF-BMR", "image_auroc", None): 98.5,
        ("MB-PFM", "image_auroc", None): 98.5 - 1.2,
        ("supervised methods", "image_auroc", None): 100,
    },
    "paper-table4": {
        ("NF-BMR", "image_precision", None): 91.5,
        ("NF-BMR", "image_recall", None): 92.0,
        ("NF-BMR", "image_f1", None): 91.4,
    },
    "paper-table5": {
        ("n=1", "image_auroc", None): 97.4,
        ("n=2", "image_auroc", None): 98.7,
        ("n=3", "image_auroc", None): 98.7 - 0.2,
        ("NF + B-PFM", "image_auroc", None): 96.2,
        ("NF alone", "image_auroc", None): 94.2,
    },
}
PAPERS["paper-fig6"], PAPERS["paper-fig7"] = PAPERS["paper-table3"], {}
PAPERS["paper-fig10"] = PAPERS["paper-table5"]


@pytest.mark.parametrize("name", PAPERS)
def test_every_table_of_the_paper_quotes_what_its_text_says_and_nothing_else(name):
    spec = load_spec(name)
    said = {
        (row.name, metric, part): 100 * one.value
        for row in (*spec.rows, *spec.literature_rows)
        for metric, parts in row.published.items()
        for part, one in parts.items()
    }
    assert said == pytest.approx(PAPERS[name])
    for row in (*spec.rows, *spec.literature_rows):
        assert all(one.source and one.protocol for parts in row.published.values() for one in parts.values())
    benchmark = BENCHMARKS[str(spec.dataset)]
    assert len(benchmark.categories) == (DAGM if spec.dataset == "dagm" else MVTEC)
    assert set(spec.categories) <= set(benchmark.categories)
    again = read_spec(spec.as_json(), name, "again")
    assert replace(again, places=spec.places) == spec


def test_rows_as_published_have_their_sources_settings_and_keep_their_own():
    one, *_, flow = (row.configured_as_published() for row in load_spec("paper-table5").rows)
    assert (one.settings["features.size"], one.settings["mapping.residual_blocks"]) == (768, 1)
    assert flow.settings["method"] == "nf"
    assert flow.settings["flow.hidden"] == 1024


def test_numbers_by_metric_and_category_stand_beside_ours_and_rows_that_are_not_run_say_so():
    said = {
        "image_auroc": {None: Published(0.949, "A"), "x": Published(0.929, "A")},
        "image_f1": {None: Published(0.9, "B")},
    }
    made = table()
    made = replace(
        made,
        lines=tuple(replace(line, published=said if line.name == "plain_row" else {}) for line in made.lines),
        literature_rows=(Line("theirs", {}, {"image_auroc": {None: Published(1.0, "C")}}),),
        secondary_metrics=("image_f1",),
    )
    main, parts, others = grids(markdown(made))
    assert main[0][1:3] == ["image AUROC, %", "F1 at the threshold, %"]
    assert main[3][-3:] == ["94.9", "90.0", "A, B"]
    assert main[4][0:2] == ["theirs", "not run"]
    assert main[4][-3:] == ["100.0", "–", "C"]
    assert parts[0][1:] == ["a & b", "plain_row", "plain_row, published"]
    assert [row[3] for row in parts[2:]] == ["92.9", "–", "94.9"]
    assert others[0][1:4] == ["average precision", "precision at the threshold", "recall at the threshold"]
    rows = list(csv.DictReader(io.StringIO(csv_text(made))))
    (theirs,) = (row for row in rows if row["row"] == "theirs")
    assert (theirs["run"], theirs["value"], theirs["published"]) == ("false", "", "1.0")
    assert "theirs" in latex(made)


def test_a_sweep_and_shortfalls_are_drawn_where_they_are_asked_for(tmp_path):
    text = "grid: {flow.blocks: [4, 1, 2], flow.hidden: [8, 16]}"
    spec = parse_spec(text, "t", "t.yaml")
    assert spec.sweep_key == "flow.blocks"
    assert [[value for value, _ in curve.points] for curve in spec.curves()] == [[1, 2, 4]] * 2
    rows = tuple(row.name for row in spec.rows)
    made = replace(
        table(rows=rows), sweep_key=spec.sweep_key, curves=spec.curves(), pictures=("categories",),
        literature_rows=(Line("theirs", {}, {"image_auroc": {None: Published(1.0, "C")}}),),
    )  # fmt: skip
    names = [path.name for path in draw(made, tmp_path)]
    assert names == ["bars.png", "differences.png", "lines.png", "sweep.png", "categories.png"]


def test_a_table_that_is_like_another_changes_what_it_says():
    spec = parse_spec("like: paper-fig6\ntitle: Mine\nquoted: []\npublished: null", "m", "m.yaml")
    assert (spec.title, spec.pictures, spec.dataset) == ("Mine", ("categories",), "dagm")
    assert [row.published for row in spec.rows] == [{}, {}]
    with pytest.raises(ConfigError, match="did you mean paper-table5"):
        parse_spec("like: paper-tabel5", "m", "m.yaml")


def test_a_table_reads_back_as_it_was():
    spec = load_spec("paper-table5")
    again = read_spec(spec.as_json(), spec.name, "again")
    assert again.rows == spec.rows
    assert (again.title, again.metric, again.reference) == (spec.title, spec.metric, spec.reference)


def test_a_grid_is_the_product_and_multiplies_rows():
    text = """
    rows: {shallow: {mapping.residual_blocks: 1}, deep: {mapping.residual_blocks: 3}}
    grid: {flow.blocks: [2, 4], flow.kernels: [[3], [3, 5]]}
    """
    spec = parse_spec(text, "t", "t.yaml")
    assert len(spec.rows) == 8
    assert spec.rows[0].name == "shallow blocks=2 kernels=3"
    assert spec.rows[-1].settings == {
        "mapping.residual_blocks": 3, "flow.blocks": 4, "flow.kernels": [3, 5]
    }  # fmt: skip


def test_nested_keys_are_dotted_keys():
    text = "rows: {a: {flow: {blocks: 2, hidden: 8}}, b: {flow.blocks: 3}}"
    assert parse_spec(text, "t", "t.yaml").rows[0].settings == {"flow.blocks": 2, "flow.hidden": 8}


def test_all_mistakes_are_told_at_once_with_places_and_near_names():
    text = """\
reference: twoo
metric: image_auroq
settings: {train.flow.epoch: 3}
rows:
  one: {flow.block: 2}
  two: {seed: 4}
  a/b: {data.path: elsewhere}
published:
  values: {three: 50, one: much}
nonsense: 1
"""
    with pytest.raises(ConfigError) as caught:
        parse_spec(text, "t", "t.yaml")
    reason = caught.value.what
    for part in (
        "t.yaml:1", "two", "image_auroc", "train.flow.epochs", "t.yaml:5", "flow.blocks", "seed", "a/b",
        "data.path", "three", "published.values.one", "nonsense",
    ):  # fmt: skip
        assert part in reason, part


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("rows: {a: {flow.blocks: 2}, b: {flow.blocks: 2}}", "the same"),
        ("title: nothing", "no rows"),
        ("grid: {flow.blocks: 2}", "a list of values"),
        ("[1, 2]", "no keys"),
        ("rows: [a, b]", "names"),
        ("rows: {a: 3}", "keys of the configuration"),
        ("rows: {a: {flow.blocks: 2}}\npublished: 3", "values"),
        ("rows: {a: {}}\nmetrics: [image_auroc, image_auroc]", "each once"),
        ("rows: {a: {}}\nmetrics: [pixel_aupr]", "pixel_aupro"),
        ("rows: {a: {}}\nmetric: image_f1\nmetrics: [image_ap]", "not both"),
        ("rows: {a: {}}\nquoted: [b]", "published numbers"),
        ("rows: {a: {}}\ndataset: mvtek", "mvtec"),
        ("rows: {a: {as_published: papier}}", "paper"),
        ("rows: {a: {}}\npublished: {values: {a: {image_aurok: 3}}}", "image_auroc"),
        ("rows: {a: {flow.blocks: 2}}\npublished: {values: {a: 200}}", "percent"),
    ],
)
def test_tables_that_make_no_sense_are_refused(text, part):
    with pytest.raises(ConfigError, match="in the table") as caught:
        parse_spec(text, "t", "t.yaml")
    assert part in caught.value.what


def test_a_table_that_is_not_there_is_told_from_a_misspelt_one(tmp_path):
    with pytest.raises(ConfigError, match="did you mean paper-table5"):
        load_spec("paper-tabel5")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_spec(str(tmp_path / "rows.yaml"))
    (tmp_path / "bad.yaml").write_text("rows: {a: 1")
    with pytest.raises(ConfigError, match="not a YAML file"):
        load_spec(str(tmp_path / "bad.yaml"))
