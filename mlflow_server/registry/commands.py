"""What ``nfbmr models`` does, top to bottom: find, fetch, judge, move."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mlflow_server.destination import Destination
from mlflow_server.registry.drift import Drift
from mlflow_server.registry.drift_check import check
from mlflow_server.registry.gate_result import MARKS, GateResult
from mlflow_server.registry.gate_settings import GateSettings
from mlflow_server.registry.gates import Case, judge
from mlflow_server.registry.model_comparison import ModelComparison, compare_models
from mlflow_server.registry.model_reference import ModelReference
from mlflow_server.registry.packed_model import PackedModel
from mlflow_server.registry.promotion import AliasChange, alias_state, promote, rollback
from mlflow_server.registry.registry import CHAMPION, Registry, Version
from nfbmr.data.samples import Sample
from nfbmr.errors import RegistryError
from nfbmr.paths import RunPaths

log = logging.getLogger(__name__)


def promotion(
    name: str,
    number: str,
    *,
    uri: str | None = None,
    alias: str = CHAMPION,
    settings: GateSettings | None = None,
    data: Path | None = None,
    reason: str = "",
    force: bool = False,
    dry_run: bool = False,
) -> AliasChange:
    """Judge a version, and let an alias point to it if every gate is passed.

    Args:
        name: Name of the registered model.
        number: Number of the version.
        uri: The tracking server; else as everywhere.
        alias: What is to point to it.
        settings: Settings of the gates.
        data: Folder of images with their kinds of defect to evaluate both versions on; by default as they
            were evaluated, or, where that was on other images, the candidate's test images.
        reason: Kept in the history; needed where `force` overrules a gate.
        force: Move it although a gate was not passed.
        dry_run: Change nothing.

    Raises:
        RegistryError: There is no such version, it is the champion already, or the server cannot be used.
        ConflictError: Somebody else moved the alias meanwhile.
    """
    registry = Registry(Destination.resolve(uri))
    version = registry.version(name, number)
    seen = alias_state(registry, name, alias, mend=not dry_run)
    for note in seen.notes:
        log.warning("%s", note)
    if seen.current is not None and seen.current.number == number:
        raise RegistryError(f"it is the {alias} already", where=str(version), fix="nothing is to be done")
    samples = None if data is None else _samples(data)
    with _workshop() as folder:
        candidate = PackedModel.of(registry, version, folder)
        champion = None if seen.current is None else PackedModel.of(registry, seen.current, folder)
        against = "" if champion is None else f" against {champion.label}"
        log.info("judging %s%s; its first gate starts a process of its own", version, against)
        findings = judge(Case(candidate, champion, settings or GateSettings(), samples), _print_gate)
    return promote(seen, version, findings, reason=reason, force=force, dry_run=dry_run)


def return_to_previous(
    name: str, *, uri: str | None = None, alias: str = CHAMPION, reason: str = "", dry_run: bool = False
) -> AliasChange:
    """Let an alias point to the champion before the present one.

    Raises:
        RegistryError: There was none before, or the server cannot be used.
        ConflictError: Somebody else moved the alias meanwhile.
    """
    registry = Registry(Destination.resolve(uri))
    seen = alias_state(registry, name, alias, mend=not dry_run)
    for note in seen.notes:
        log.warning("%s", note)
    return rollback(seen, registry.versions(name), reason=reason, dry_run=dry_run)


def check_threshold(
    name: str,
    images: Sequence[Path],
    *,
    uri: str | None = None,
    alias: str = CHAMPION,
    number: str | None = None,
    confidence: float = 0.95,
) -> tuple[Version, Drift]:
    """Hold a registered model against new good parts.

    Args:
        name: Name of the registered model.
        images: Files or folders of good parts.
        uri: The tracking server; else as everywhere.
        alias: Which version.
        number: The version by its number, instead.
        confidence: Confidence of the interval.
    """
    registry = Registry(Destination.resolve(uri))
    version = registry.at(name, alias) if number is None else registry.version(name, number)
    if version is None:
        raise RegistryError(
            f"no version is the {alias}",
            where=name,
            fix=f"name one with --version, or promote one: nfbmr models promote {name} VERSION",
        )
    with _workshop() as folder:
        return version, check(PackedModel.of(registry, version, folder), images, confidence=confidence)


def comparison(
    first: str, second: str, *, uri: str | None = None, data: Path | None = None, confidence: float = 0.95
) -> ModelComparison:
    """Two models side by side.

    Args:
        first: ``NAME/VERSION``, ``NAME@ALIAS``, ``NAME`` for its champion, or the folder of a finished run.
        second: Another one, named likewise.
        uri: The tracking server; else as everywhere.
        data: As for :func:`promotion`.
        confidence: Confidence of the intervals.
    """
    samples = None if data is None else _samples(data)
    with _workshop() as folder:
        a, b = (_contender(text, uri, folder / side) for text, side in ((first, "first"), (second, "second")))
        return compare_models(a, b, samples, confidence=confidence)


def _contender(text: str, uri: str | None, folder: Path) -> PackedModel:
    if RunPaths(Path(text)).config.exists():
        from mlflow_server.packaging.packing import pack

        pack(Path(text), folder, backbone="referenced")
        return PackedModel(text, folder)
    registry = Registry(Destination.resolve(uri))
    version = ModelReference.of(text).version(registry)
    packed = PackedModel.of(registry, version, folder)
    return PackedModel(str(version), packed.folder)


def _samples(data: Path) -> list[Sample]:
    from nfbmr.data.layouts import load_dataset

    return list(load_dataset(data).samples)


def _print_gate(finding: GateResult) -> None:
    log.debug("gate %s: %s, %s", finding.gate, MARKS[finding.passed], finding.sentence)


@contextmanager
def _workshop() -> Iterator[Path]:
    """A folder for what is fetched."""
    with tempfile.TemporaryDirectory(prefix="nfbmr-models-") as folder:
        yield Path(folder)
