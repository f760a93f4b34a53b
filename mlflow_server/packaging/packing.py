"""A finished run's model as a folder that MLflow loads: on another machine, without a network, without ray.

::

    MLmodel, requirements.txt, ...   MLflow's own files
    scoring_model.py                 the code that MLflow executes
    input_example.json               a small image
    artifacts/
      nfbmr.zip                      the package as it was when the model was packed
      model/                         the method's networks and scorer; the backbone's weights, if included
      evidence/                      what is known of the model: see mlflow_server/packaging/evidence.py
"""

from __future__ import annotations

import base64
import hashlib
import io
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import nfbmr
from mlflow_server.client import apply_settings
from mlflow_server.packaging.evidence import Evidence, forget_server, gather
from nfbmr.config import Config
from nfbmr.data.images import load_image
from nfbmr.data.sources import MAX_PIXELS
from nfbmr.errors import ImageError, MissingPackageError
from nfbmr.features.bundled_weights import keep_weights
from nfbmr.features.weights import package_of
from nfbmr.inference import columns_of
from nfbmr.paths import RunPaths, read_json

if TYPE_CHECKING:
    from mlflow.models import Model, ModelSignature

Backbone = Literal["included", "referenced"]
"""Whether a model holds its backbone's weights, or their hash alone."""

NEEDED = (
    "mlflow",
    "torch",
    "torchvision",
    "timm",
    "FrEIA",
    "safetensors",
    "numpy",
    "pandas",
    "pillow",
    "pydantic",
    "PyYAML",
    "scipy",
    "matplotlib",
    "tqdm",
)
"""What prediction imports; a test holds it to that."""

_CODE = Path(__file__).with_name("scoring_model.py")
_EXAMPLE_SIDE = 96
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


def pack(
    run: Path,
    out: Path,
    *,
    backbone: Backbone = "included",
    about: Model | None = None,
    on_progress: Callable[[], None] = lambda: None,
) -> None:
    """Write the model of a run as a folder that MLflow loads.

    Args:
        run: Folder of a run whose model is finished.
        out: A folder that does not exist yet.
        backbone: ``included``: its weights are in the folder. ``referenced``: only their hash is, and they
            have to be found where the model is loaded.
        about: What MLflow knows of the model already: its name there, the run it comes from.
        on_progress: Called now and then.

    Raises:
        CheckpointError: There is no model.
        WeightsError: The backbone's weights cannot be had here.
    """
    save_model = models_of_mlflow().save_model
    meta = read_json(RunPaths(run).model / "model.json")
    config = Config.model_validate(meta["config"])
    with tempfile.TemporaryDirectory(prefix="nfbmr-model-") as name:
        stage = Path(name)
        model, evidence, code = stage / "model", stage / "evidence", stage / "nfbmr.zip"
        shutil.copytree(RunPaths(run).model, model)
        forget_server(model / "model.json")
        on_progress()
        if backbone == "included":
            keep_weights(config.features, meta["weights_digest"], model)
        on_progress()
        archive_code(code)
        gathered = gather(run, evidence)
        on_progress()
        save_model(
            path=out,
            python_model=str(_CODE),
            artifacts={"model": str(model), "evidence": str(evidence), "code": str(code)},
            signature=signature(meta["parts"]),
            input_example=[_example(gathered)],
            pip_requirements=requirements(config, backbone),
            model_config={"device": "auto", "paths": "auto", "max_pixels": MAX_PIXELS},
            mlflow_model=about,
        )
    _finish(out)
    on_progress()


def models_of_mlflow() -> Any:
    """``mlflow.pyfunc``, whose import complains of MLflow's own annotations."""
    apply_settings()
    # Not in catch_warnings, which changes the filters of all threads and puts them back.
    warnings.filterwarnings("ignore", ".*Any type hint is inferred as AnyType", UserWarning)
    import mlflow.pyfunc

    return mlflow.pyfunc


def backbone_of(run: Path) -> Backbone:
    """How a run's model is packed: as its configuration says.

    A run that ended before its test set was read, as a sweep's trials do, refers to its backbone: there are
    many of them, and few are ever used.
    """
    paths = RunPaths(run)
    if not paths.summary.exists():
        return "referenced"
    return Config.model_validate(read_json(paths.model / "model.json")["config"]).tracking.backbone


def key_of(run: Path, backbone: Backbone) -> str:
    """What tells one packed model of a run from another: its contents, and how it is packed."""
    paths = RunPaths(run)
    sha = hashlib.sha256(f"{backbone} {paths.summary.exists()}".encode())
    for file in sorted(paths.model.rglob("*")):
        if file.is_file():
            sha.update(f"{file.relative_to(paths.model).as_posix()}\0".encode())
            sha.update(hashlib.sha256(file.read_bytes()).digest())
    return sha.hexdigest()[:32]


def signature(components: Sequence[str]) -> ModelSignature:
    """What the model takes and gives, in MLflow's terms."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType

    types: dict[str, Any] = dict.fromkeys(("rejected", "test_peeked"), "boolean")
    types |= dict.fromkeys(("heatmap", "mask", "error"), "string")
    # A list of objects, and an object.
    types |= dict.fromkeys(("regions", "peak"), AnyType())  # type: ignore[no-untyped-call]
    always = ("threshold", "test_peeked")
    return ModelSignature(
        inputs=Schema([ColSpec(AnyType())]),  # type: ignore[no-untyped-call]
        outputs=Schema(
            [
                ColSpec(types.get(name, "double"), name, required=name in always)
                for name in columns_of(components)
            ]
        ),
        params=ParamSchema(
            [ParamSpec("threshold", DataType.double, None), ParamSpec("heatmap", DataType.boolean, False)]
        ),
    )


def requirements(config: Config, backbone: Backbone) -> list[str]:
    """What has to be installed to predict, pinned to what is installed here.

    Raises:
        MissingPackageError: Something of it is not installed.
    """
    networks = (config.features.backbone, config.features.target.backbone) if backbone == "referenced" else ()
    packages = {package for name in networks if name is not None and (package := package_of(name))}
    pinned = []
    for name in (*NEEDED, *sorted(packages)):
        try:
            # A local version such as 2.15.0+cpu is known to no index.
            pinned.append(f"{name}=={metadata.version(name).partition('+')[0]}")
        except metadata.PackageNotFoundError as error:
            raise MissingPackageError(
                "a package that prediction needs is not installed", where=name, fix=f"pip install {name}"
            ) from error
    return pinned


def archive_code(path: Path) -> None:
    """The package, as Python imports it from an archive; the same code makes the same bytes."""
    root = Path(nfbmr.__file__).parent
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(root.rglob("*.py")):
            name = (Path(root.name) / file.relative_to(root)).as_posix()
            archive.writestr(zipfile.ZipInfo(name, _ZIP_TIME), file.read_bytes(), zipfile.ZIP_DEFLATED)


def _example(evidence: Evidence) -> str:
    """A small image as base64 text."""
    from PIL import Image

    image = Image.linear_gradient("L")
    for reference in evidence.references:
        try:
            image = load_image(reference.file)
            break
        except ImageError:
            continue
    image.thumbnail((_EXAMPLE_SIDE, _EXAMPLE_SIDE))
    file = io.BytesIO()
    image.save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


def _finish(folder: Path) -> None:
    """Mend MLflow's description of the model: no paths of this machine, and inputs as they are given.

    Else MLflow makes a table of a list of arrays, a column a row of pixels, and keeps the first column.
    """
    from mlflow.models import Model

    model = Model.load(str(folder))
    flavor: dict[str, Any] = model.flavors["python_function"]
    flavor["model_code_path"] = _CODE.name
    for artifact in flavor["artifacts"].values():
        artifact["uri"] = Path(artifact["uri"]).name
    model.signature._is_signature_from_type_hint = True
    model.save(str(folder / "MLmodel"))
