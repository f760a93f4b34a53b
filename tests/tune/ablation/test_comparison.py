"""``nfbmr compare``: methods on two splits, what they cost, one table and one picture; gone on with."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nfbmr.benchmark import read_cost
from nfbmr.cli.main import main
from nfbmr.data.synthesize import CLASSES, synthesize
from nfbmr.errors import ConfigError, Interrupted
from nfbmr.methods.registry import METHODS
from nfbmr.paths import RunPaths
from nfbmr.records import read_record
from tests.tune.ablation.test_ablation import HERE, resolved
from tune.ablation.ablation import ablate, find_ablation, new_ablation
from tune.ablation.benchmark_runs import timed_cells
from tune.ablation.comparison import comparison_spec, with_costs
from tune.ablation.comparison_table import CSV_COLUMNS, pareto
from tune.ablation.plan import AblationPlan, plan_ablation
from tune.ablation.report import headline
from tune.ablation.spec import parse_spec
from tune.execution.resources import Resources
from tune.records.ablation_summary import ComparisonSummary

ROWS = """
rows:
  nf: {method: nf}
  padim: {method: padim, features.taps: [blocks.1, blocks.2], padim.channels: 6}
  differnet: {method: differnet, features.rotations: 2, features.test_rotations: 2}
"""


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A folder of one's own: three pictures a part, in the name, and masks."""
    root = tmp_path_factory.mktemp("parts")
    made = synthesize(
        root / "made", classes=CLASSES[:1], train=24, test_good=6, test_defective=9, size=64, seed=1
    )
    number = 0
    for file in sorted(made.rglob("*.png")):
        if "ground_truth" in file.parts:
            continue
        name, kind = f"part{number // 3:02d}_{number}", file.parent.name
        number += 1
        target = root / "own" / kind / f"{name}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
        for mask in made.rglob(f"ground_truth/{kind}/{file.stem}_mask.png"):
            beside = root / "own" / "ground_truth" / kind / f"{name}_mask.png"
            beside.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(mask, beside)
    return root / "own"


def planned(root: Path, data: Path, name: str, splits=("random", "group"), text=ROWS, **more) -> AblationPlan:
    spec = with_costs(parse_spec(text, "compare", "rows.yaml"))
    base = resolved(root, data, data__group_by=r"part(\d+)", **more)
    return plan_ablation(spec, base, name=name, seeds=1, splits=splits, compares=True)


@pytest.fixture(scope="module")
def compared(tmp_path_factory, parts):
    root = tmp_path_factory.mktemp("compare")
    plan = planned(root, parts, "c")
    return plan, new_ablation(plan, HERE).as_json(), root


def summary_of(cell):
    return json.loads(RunPaths(cell.task.folder).summary.read_text())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_both_splits_are_columns_of_one_table_with_the_runs_own_numbers(compared):
    plan, summary, _ = compared
    assert summary["splits"] == ["random", "group"]
    assert not summary["cells"]["missing"]
    json.dumps(summary)
    for cell in plan.cells():
        run = summary_of(cell)
        assert run["split"] == cell.split
        found = summary["rows"][cell.row]["splits"][cell.split]["metrics"]
        assert found["image_auroc"]["value"] == pytest.approx(run["metrics"]["test"]["image_auroc"]["value"])
        for metric in ("pixel_auroc", "pixel_aupro"):
            own = run["metrics"]["test"].get(metric)
            assert found[metric]["value"] == (None if own is None else pytest.approx(own["value"]))
    assert summary["rows"]["differnet"]["splits"]["group"]["metrics"]["pixel_auroc"]["value"] is None
    first = plan.paths.table("md").read_text().split("## Notes")[0]
    for column in ("image AUROC, % (random)", "image AUROC, % (group)", "AUPRO, % (group)", "ms an image"):
        assert column in first
    assert "Split group, in detail" in plan.paths.table("md").read_text()
    told = headline(ComparisonSummary.from_json(summary))
    assert all(name in told for name in ("nf", "padim", "differnet", "quality-latency.png"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_each_method_is_timed_once_and_its_run_and_its_record_have_the_cost(compared):
    plan, summary, _ = compared
    assert set(timed_cells(plan.cells())) == set(summary["rows"])
    for cell in plan.cells():
        cost = read_cost(cell.task.folder)
        timed = (cell.split, cell.seed) == ("random", 0)
        assert (cost is not None) == timed
        if cost is not None:
            record = read_record(RunPaths(cell.task.folder).journal)
            assert record.status == "finished"
            assert record.metrics["cost/ms_one"][-1].value == cost.one.value
            row = summary["rows"][cell.row]
            assert row["cost"]["ms_one"] == cost.one.value
            assert row["training_seconds"] > row["fitting_seconds"] > 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_table_files_and_picture_agree(compared):
    plan, summary, _ = compared
    with plan.paths.table("csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert set(rows[0]) == set(CSV_COLUMNS)
    assert [(row["method"], row["split"]) for row in rows] == [
        (name, split) for name in summary["rows"] for split in summary["splits"]
    ]
    for row in rows:
        value = summary["rows"][row["method"]]["splits"][row["split"]]["metrics"]["image_auroc"]["value"]
        assert float(row["image_auroc"]) == pytest.approx(value, abs=1e-6)
    # best first by the first split
    values = [float(row["image_auroc"]) for row in rows if row["split"] == "random"]
    assert values == sorted(values, reverse=True)
    assert r"\toprule" in plan.paths.table("tex").read_text()
    frame = pq.read_table(plan.paths.results).to_pylist()
    assert {row["split"] for row in frame} == {*summary["splits"], None}
    for row in frame:
        if (row["metric"], row["category"], row["seed"]) == ("image_auroc", None, None):
            entry = summary["rows"][row["row"]]["splits"][row["split"]]["metrics"]["image_auroc"]
            assert row["value"] == entry["value"]
    times = {row["row"]: row["value"] for row in frame if row["metric"] == "ms_one"}
    assert times == {name: row["cost"]["ms_one"] for name, row in summary["rows"].items()}
    (picture,) = summary["pictures"]
    with Image.open(picture) as image:
        assert min(image.size) > 500


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_going_on_measures_nothing_again_and_takes_another_seed_and_split(compared):
    plan, first, root = compared
    before = {
        cell.task.key: (
            RunPaths(cell.task.folder).summary.stat().st_mtime_ns, read_cost(cell.task.folder)
        )
        for cell in plan.cells()
    }  # fmt: skip
    more = find_ablation("c", root / "runs").extended(2, None, ["group"])
    assert more.splits == ("group",)
    summary = ablate(more, HERE).as_json()
    assert summary["cells"]["asked"] == 6
    assert summary["rows"]["nf"]["splits"]["group"]["metrics"]["image_auroc"]["seeds"] == 2
    whole = find_ablation("c", root / "runs").extended(1, None, ["random", "group"])
    again = ablate(whole, HERE).as_json()
    assert again["rows"] == first["rows"]
    after = {
        cell.task.key: (
            RunPaths(cell.task.folder).summary.stat().st_mtime_ns,
            read_cost(cell.task.folder) if cell.split == "random" else None,
        )
        for cell in plan.cells()
    }
    assert after == before


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_command_compares_on_ray_and_tells_what_failed(tmp_path, parts, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    plan = planned(tmp_path, parts, "unused")
    Path("tiny.json").write_text(json.dumps(plan.config.model_dump(mode="json")))
    Path("rows.yaml").write_text(
        "rows: {nf: {method: nf}, wild: {method: nf-bmr, train.mapping.lr: 1e+30}}", encoding="utf-8"
    )
    line = [
        "compare",
        "rows.yaml",
        "--config",
        "tiny.json",
        "--split",
        "group",
        "--name",
        "two",
        "--json",
        "-q",
    ]
    assert main(line) == 2
    summary = json.loads(capsys.readouterr().out)
    assert list(summary["cells"]["missing"]) == ["wild/group/seed-0"]
    assert summary["rows"]["wild"]["cost"] is None
    assert summary["rows"]["nf"]["front"] == ["group"]
    assert "wild/group/seed-0" in (tmp_path / "runs" / "two" / "table.md").read_text()
    assert main(["ablate", "--resume", "two"]) == 2
    assert "nfbmr compare --resume two" in capsys.readouterr().err


def test_a_stop_comes_before_the_stopwatch(tmp_path, parts):
    plan = planned(tmp_path, parts, "half", splits=("group",), text="rows: {nf: {method: nf}}")
    with pytest.raises(Interrupted, match="nfbmr compare --resume"):
        ablate(plan, Resources(backend="local", time_budget=0.0))
    assert not plan.paths.summary.exists()
    assert "Nothing was timed" in plan.paths.table("md").read_text()
    assert not plan.paths.scatter.exists()


# -- what is compared


def test_by_default_every_method_is_a_row_in_its_own_configuration():
    spec = comparison_spec()
    assert {row.name: row.settings for row in spec.rows} == {name: {"method": name} for name in METHODS}
    assert spec.metrics == ("image_auroc", "pixel_auroc", "pixel_aupro")


def test_named_configurations_can_be_compared_with_methods():
    _, published = comparison_spec(["padim", "padim-published"]).rows
    assert published.settings["method"] == "padim"
    assert published.settings["features.backbone"] == "resnet18.tv_in1k"


@pytest.mark.parametrize(
    ("chosen", "part"),
    [(["padimm"], "padim"), (["nf", "nf"], "twice"), ([], "no methods"), (["nowhere:METHOD"], "nowhere")],
)
def test_methods_that_are_none_are_refused(chosen, part):
    with pytest.raises(ConfigError) as caught:
        comparison_spec(chosen)
    assert part in str(caught.value)


def test_splits_go_by_their_own_names_and_wrong_ones_are_told(tmp_path, parts):
    plan = planned(tmp_path, parts, "auto", splits=())
    assert plan.splits == ("group",)  # what auto takes where the names have groups
    assert {cell.task.key for cell in plan.cells()} >= {"nf/group/seed-0"}
    with pytest.raises(ConfigError, match="does not fit"):
        planned(tmp_path, parts, "none", splits=("legacy",))
    with pytest.raises(ConfigError, match="did you mean group"):
        planned(tmp_path, parts, "none", splits=("groups",))
    plan.write()
    again = AblationPlan.read(plan.paths.root)
    assert (again.splits, again.compares, again.cells()) == (plan.splits, True, plan.cells())


@given(
    st.dictionaries(
        st.sampled_from("abcdefgh"), st.tuples(st.integers(1, 5).map(float), st.integers(0, 5).map(float))
    )
)
def test_the_front_is_what_nobody_beats(points):
    front = pareto(points)

    def beats(a, b):
        return a[0] <= b[0] and a[1] >= b[1] and a != b

    for name, point in points.items():
        assert (name in front) == (not any(beats(other, point) for other in points.values()))
    assert bool(front) == bool(points)
    assert pareto({**points, "z": (math.nan, 9.0)}) == front


@pytest.mark.parametrize(
    ("line", "part"),
    [
        (["compare", "--methods", "nope"], "no method nope"),
        (["compare", "rows.yaml", "--methods", "nf"], "not both"),
        (["compare", "--data", "nowhere"], "nowhere"),
        (["compare", "--resume", "nothing"], "no ablation nothing"),
        (["compare", "--resume", "x", "--methods", "nf"], "leave out --methods"),
        (["compare", "--split", "halves"], "halves"),
    ],
)
def test_mistakes_on_the_command_line_end_with_2_and_say_what(line, part, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(line) == 2
    assert part in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
