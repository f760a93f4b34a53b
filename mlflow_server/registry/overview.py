"""Registered models in words and as plain data: what the commands of ``nfbmr models`` print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from mlflow_server.destination import Destination
from mlflow_server.registry.drift import Drift
from mlflow_server.registry.gate_result import MARKS
from mlflow_server.registry.history import champions
from mlflow_server.registry.promotion import AliasChange, alias_state
from mlflow_server.registry.registering import run_of
from mlflow_server.registry.registry import Registry, Version
from nfbmr.text import count


def list_data(uri: str | None) -> list[dict[str, Any]]:
    """All registered models."""
    registry = Registry(Destination.resolve(uri))
    return [
        {
            "name": model.name,
            "aliases": dict(model.aliases),
            "versions": len(versions := registry.versions(model.name)),
            "latest": versions[-1].number if versions else None,
        }
        for model in registry.models()
    ]


def format_list(rows: Sequence[Mapping[str, Any]]) -> str:
    """The same for people."""
    if not rows:
        return "no registered models yet: nfbmr models register RUN --name NAME"
    width = max(len(row["name"]) for row in rows)
    return "\n".join(
        f"{row['name']:<{width}}  {count(row['versions'], 'version')}"
        + "".join(f", {alias} is {number}" for alias, number in sorted(row["aliases"].items()))
        for row in rows
    )


def show_data(name: str, uri: str | None) -> dict[str, Any]:
    """A registered model and its versions."""
    registry = Registry(Destination.resolve(uri))
    model = registry.model(name)
    return {
        "name": name,
        "uri": registry.address,
        "description": model.description,
        "aliases": dict(model.aliases),
        "versions": [_version(version) for version in registry.versions(name)],
    }


def _version(version: Version) -> dict[str, Any]:
    tags = version.tags
    return {
        "version": version.number,
        "aliases": list(version.aliases),
        "run": run_of(version),
        "mlflow_run_id": version.run_id,
        "model_id": version.model_id,
        "created": version.created,
        "method": tags.get("nfbmr.method"),
        "dataset": tags.get("nfbmr.dataset"),
        "dataset_digest": tags.get("nfbmr.dataset_digest"),
        "split": tags.get("nfbmr.split"),
        "split_digest": tags.get("nfbmr.split_digest"),
        "test_peeked": tags.get("nfbmr.test_peeked") == "true",
        "image_auroc": {
            end: _number(tags.get(f"nfbmr.image_auroc{suffix}"))
            for end, suffix in (("value", ""), ("low", "_low"), ("high", "_high"))
        },
        "threshold": _number(tags.get("nfbmr.threshold")),
        "backbone": tags.get("nfbmr.backbone"),
    }


def format_model(model: Mapping[str, Any]) -> str:
    """The same for people."""
    lines = [f"{model['name']} on {model['uri']}"]
    for version in model["versions"]:
        auroc = version["image_auroc"]
        worth = "no test set" if auroc["value"] is None else f"image AUROC {auroc['value']:.3f}"
        if auroc["low"] is not None and auroc["high"] is not None:
            worth += f" [{auroc['low']:.3f}, {auroc['high']:.3f}]"
        peeked = "  TEST-PEEKED" if version["test_peeked"] else ""
        marks = "".join(f"  <- {alias}" for alias in version["aliases"])
        lines += [
            f"  version {version['version']}  {version['method'] or '?'}, {worth}{peeked}{marks}",
            f"    run {version['run']}, {_day(version['created'])}; "
            f"{version['dataset'] or '?'}, split {version['split'] or '?'} {version['split_digest'] or ''}",
        ]
    return "\n".join(lines)


def history_data(name: str, alias: str, uri: str | None) -> dict[str, Any]:
    """Every move of an alias."""
    registry = Registry(Destination.resolve(uri))
    seen = alias_state(registry, name, alias, mend=False)
    return {
        "name": name,
        "alias": alias,
        "current": None if seen.current is None else seen.current.number,
        "champions": [entry.after for entry in champions(seen.entries)],
        "notes": list(seen.notes),
        "entries": [entry.as_json() for entry in seen.entries],
    }


def format_history(history: Mapping[str, Any]) -> str:
    """The same for people."""
    if not history["entries"]:
        return f"{history['name']}: {history['alias']} has not been moved yet"
    now = history["current"] or "nothing"
    lines = [f"{history['name']}: {history['alias']} points to {now}"]
    lines += [f"  NOTE {note}" for note in history["notes"]]
    for entry in history["entries"]:
        forced = ", FORCED" if entry["forced"] else ""
        lines.append(
            f"  {entry['number']:>3}  {_day(entry['time'])}  {entry['action']:<8}  "
            f"{entry['before'] or '-'} -> {entry['after'] or '-'}  {entry['by']}{forced}"
        )
        if entry["reason"]:
            lines.append(f"       {entry['reason']}")
        refusing = [_with_numbers(gate) for gate in entry["gates"] if gate["passed"] is False]
        off = [gate["gate"] for gate in entry["gates"] if gate["passed"] is None]
        if refusing:
            lines.append(f"       overruled: {', '.join(refusing)}")
        if off:
            lines.append(f"       turned off: {', '.join(off)}")
    return "\n".join(lines)


def format_change(move: AliasChange) -> str:
    """What a promotion or a rollback came to, for people."""
    before = "nothing" if move.before is None else f"version {move.before}"
    lines = [f"  {MARKS[gate.passed]:<8} {gate.gate:<14} {gate.sentence}" for gate in move.findings]
    if lines:
        lines.append("")
    target = f"{move.name}: {move.alias}"
    if move.entry is not None:
        how = ", although a gate refused" if move.entry.forced else ""
        lines.append(f"{target} now points to version {move.after}, before to {before}{how}")
    elif move.refused and not move.dry_run:
        lines.append(f"{target} stays at {before}")
    elif move.refused:
        lines.append(f"{target} would stay at {before} (--dry-run)")
    else:
        lines.append(f"{target} would move from {before} to version {move.after} (--dry-run)")
    return "\n".join(lines)


def format_drift(version: Version, drift: Drift) -> str:
    """What a check of new good parts found, for people."""
    then, now = drift.medians
    lines = [
        f"{version}: {drift.sentence}",
        f"  threshold {drift.threshold:.4g}, set for {drift.stated:.0%} false rejects",
        f"  new good images rejected  {drift.rejects:.1%}",
        f"  median score  {then:.4g} on {count(drift.known, 'validation image')}, "
        f"{now:.4g} on {count(drift.new, 'new one')}",
        f"  Kolmogorov-Smirnov {drift.statistic:.3f}, p = {drift.probability:.2g}; "
        f"Cliff's delta {drift.delta:+.2f}",
    ]
    lines += [f"  left out: {name} ({what})" for name, what in drift.unreadable.items()]
    return "\n".join(lines)


def _with_numbers(gate: Mapping[str, Any]) -> str:
    """A gate of the history, with what was measured and its limit where they were kept."""
    measured, limit = (
        f"{value:.4g}" if isinstance(value, float) else value
        for value in (gate.get("measured"), gate.get("limit"))
    )
    if measured is None:
        return str(gate["gate"])
    return f"{gate['gate']} ({measured}" + ("" if limit is None else f", limit {limit}") + ")"


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _day(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000).astimezone():%Y-%m-%d %H:%M}"
