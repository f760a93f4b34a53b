"""The plan of an ablation: read back as it was, extended, and refused with everything that is wrong."""

from __future__ import annotations

import pytest

from nfbmr.cli.main import main
from nfbmr.data.synthesize import CLASSES, synthesize
from nfbmr.errors import ConfigError
from nfbmr.layers import option_layer, set_layer
from nfbmr.methods.registry import MethodDefaults
from nfbmr.resolve import Layer, resolve
from tests.tune.ablation.test_ablation import MIXED, TINY, TWO_ROWS, planned, resolved, rows
from tune.ablation.plan import AblationPlan, plan_ablation
from tune.ablation.spec import load_spec


def test_a_plan_reads_back_and_keeps_its_cells_names(tmp_path, textures):
    plan = plan_ablation(load_spec("paper-table5"), resolved(tmp_path, textures), name="t", seeds=2)
    plan.write()
    again = AblationPlan.read(plan.paths.root)
    assert again.cells() == plan.cells()
    assert again.changes(plan) == []
    more = again.extended(3, None)
    assert {cell.task.key for cell in plan.cells()} < {cell.task.key for cell in more.cells()}
    assert [cell for cell in more.cells() if cell.seed < 2] == list(plan.cells())
    assert all(cell.task.test for cell in plan.cells())


def test_a_seed_is_of_the_weights_and_of_the_split_where_asked():
    same, vary = (
        {(c.task.config.seed, c.task.config.data.seed) for c in planned(MIXED, split_seeds=how).cells()}
        for how in ("same", "vary")
    )
    assert same == {(0, 0), (1, 0)}
    assert vary == {(0, 0), (1, 1)}


def test_everything_wrong_is_said_at_once_before_anything_starts(tmp_path, textures):
    spec = rows(
        """
        settings: {train.flow.epochs: 0}
        rows:
          one: {method: nf-bmrr}
          two: {flow.blocks: many}
          three: {features.taps: [blocks.77]}
        """
    )
    with pytest.raises(ConfigError) as caught:
        plan_ablation(spec, resolved(tmp_path, textures), name="bad")
    for part in ("nf-bmr?", "flow.blocks", "row two", "many"):
        assert part in caught.value.what, part
    with pytest.raises(ConfigError, match=r"blocks\.77"):
        plan_ablation(
            rows("rows: {a: {}, b: {features.taps: [blocks.77]}}"), resolved(tmp_path, textures), name="bad"
        )
    assert not (tmp_path / "runs").exists()


def test_rows_that_come_to_the_same_are_refused(tmp_path, textures):
    spec = rows("rows: {a: {}, b: {flow.blocks: 1}}")
    with pytest.raises(ConfigError, match="same configuration"):
        plan_ablation(spec, resolved(tmp_path, textures), name="same")


def test_what_rows_set_is_not_set_on_the_command_line_as_well(tmp_path, textures):
    base = resolved(tmp_path, textures)
    given_ = resolve(
        [Layer("tiny.yaml", TINY), set_layer(["flow.blocks=3"]),
         option_layer({"data.path": ("--data", str(textures))})],
        methods=MethodDefaults(),
    )  # fmt: skip
    spec = rows("rows: {a: {flow.blocks: 2}, b: {flow.blocks: 4}}")
    with pytest.raises(ConfigError, match="leave that out"):
        plan_ablation(spec, given_, name="twice")
    assert len(plan_ablation(spec, base, name="once").cells()) == 6


def test_the_command_line_has_the_last_word_on_settings_of_the_table_but_not_on_rows(tmp_path, textures):
    spec = rows(
        "settings: {train.flow.epochs: 9, train.mapping.epochs: 9, flow.clamp: 2.0}\n"
        "rows: {a: {flow.hidden: 5}, b: {flow.hidden: 6}}"
    )
    plan = plan_ablation(spec, resolved(tmp_path, textures), name="layers")
    a, b = (plan.row_config(row) for row in plan.spec.rows)
    assert a.train.flow.epochs == b.train.flow.epochs == 2
    assert a.flow.clamp == 2.0
    assert (a.flow.hidden, b.flow.hidden) == (5, 6)


def test_categories_are_checked_and_named(tmp_path, two_textures):
    spec, base = rows(TWO_ROWS), resolved(tmp_path, two_textures)
    first, second = sorted(CLASSES[:2])
    assert plan_ablation(spec, base, name="all").categories == (first, second)
    assert plan_ablation(spec, base, name="one", categories=[second]).categories == (second,)
    with pytest.raises(ConfigError, match=f"did you mean {first}"):
        plan_ablation(spec, base, name="none", categories=[first[:-1]])


def test_a_test_set_without_defects_is_refused(tmp_path):
    data = synthesize(tmp_path / "t", classes=CLASSES[:1], train=6, test_good=3, test_defective=2, size=64)
    for path in data.glob("*/test/*/*.png"):
        if path.parent.name != "good":
            path.unlink()
    with pytest.raises(ConfigError, match="no defective image"):
        plan_ablation(rows(TWO_ROWS), resolved(tmp_path, data), name="good")


@pytest.mark.parametrize(
    ("line", "part"),
    [
        (["ablate"], "which TABLE"),
        (["ablate", "paper-tabel5"], "paper-table5"),
        (["ablate", "paper-table5", "--seeds", "0"], "seeds"),
        (["ablate", "paper-table5", "--name", "a/b"], "--name"),
        (["ablate", "paper-table5", "--data", "nowhere"], "nowhere"),
        (["ablate", "--resume", "nothing"], "no ablation nothing"),
        (["ablate", "paper-table5", "--resume", "x"], "leave out TABLE"),
        (["ablate", "paper-table5", "--method", "nf"], "leave that out"),
        (["ablate", "paper-table5", "--resources", "gpu=auto"], "gpu=auto"),
    ],
)
def test_mistakes_on_the_command_line_end_with_2_and_say_what(line, part, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(line) == 2
    assert part in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
