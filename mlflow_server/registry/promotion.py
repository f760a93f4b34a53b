"""Moving an alias from one version to another, and back.

The order is: look where the alias is, judge the version against the one it points to, write the next entry of
the history, let the alias follow. Whoever writes an entry second is told, and judges anew. A process that is
killed before the entry is written has done nothing; after it, the next command of anybody finishes the move.
At no point does the alias point nowhere.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlflow_server.registry.gate_result import GateResult, refused
from mlflow_server.registry.history import Entry, History, champions, current_user
from mlflow_server.registry.registry import Registry, Version, check_alias
from nfbmr.errors import ConflictError, RegistryError

_GATES = "nfbmr.gates"
_ASKED = "nfbmr.last_asked"


@dataclass(frozen=True)
class AliasState:
    """Where an alias is, and how it got there.

    Attributes:
        history: History of the alias.
        entries: Its entries when it was looked at.
        current: The version that the alias pointed to then; None where there was none.
        notes: What was found to be otherwise than nfbmr left it, in sentences.
    """

    history: History
    entries: tuple[Entry, ...]
    current: Version | None
    notes: tuple[str, ...] = ()

    @property
    def champions(self) -> list[Entry]:
        """Those before the present one, and the present one last."""
        return champions(self.entries)


def alias_state(registry: Registry, name: str, alias: str, *, mend: bool = True) -> AliasState:
    """Look where an alias is.

    Args:
        registry: Where the model is registered.
        name: Name of the registered model.
        alias: Which.
        mend: Finish a move that was cut short, and write down one that was made without nfbmr.

    Raises:
        RegistryError: There is no such model, or no history is kept with it.
    """
    check_alias(alias)
    model = registry.model(name)
    history = History(registry, model, alias)
    entries = history.entries()
    number = model.aliases.get(alias)
    expected = entries[-1].after if entries else None
    if number == expected:
        if mend and entries and not history.carried_out(entries[-1]):
            history.finish_move(entries[-1])  # all but the note that it was
        return AliasState(history, tuple(entries), registry.at(name, alias))
    if (
        entries
        and not history.carried_out(entries[-1])
        and any(  # the version that it leads to is still there, and still that model
            version.number == expected and entries[-1].model_id in ("", version.model_id)
            for version in registry.versions(name)
        )
    ):
        note = f"the last move of {alias}, to {_named(expected)}, was cut short"
        if mend:
            history.finish_move(entries[-1])
            note += " and has now been finished"
        return AliasState(history, tuple(history.entries()), registry.at(name, alias), (note,))
    note = f"{alias} points to {_named(number)}, and nfbmr left it at {_named(expected)}"
    current = registry.at(name, alias)
    if mend:
        entry = history.next(
            entries, "found", before=expected, after=number, model_id=current.model_id if current else ""
        )
        history.claim(entry)
        history.finish_move(entry)
        entries.append(entry)
    return AliasState(history, tuple(entries), current, (note,))


@dataclass(frozen=True)
class AliasChange:
    """What a promotion or a rollback came to.

    Attributes:
        entry: Entry of the history; None where nothing was moved.
        findings: What each gate said.
        dry_run: Whether it was only tried.
    """

    name: str
    alias: str
    before: str | None
    after: str
    entry: Entry | None
    findings: tuple[GateResult, ...] = ()
    notes: tuple[str, ...] = ()
    dry_run: bool = False

    @property
    def refused(self) -> tuple[GateResult, ...]:
        """Gates that were not passed."""
        return refused(self.findings)

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "name": self.name,
            "alias": self.alias,
            "before": self.before,
            "after": self.after,
            "moved": self.entry is not None,
            "dry_run": self.dry_run,
            "forced": bool(self.entry and self.entry.forced),
            "gates": [finding.as_json() for finding in self.findings],
            "notes": list(self.notes),
            "entry": None if self.entry is None else self.entry.as_json(),
        }


def promote(
    seen: AliasState,
    version: Version,
    findings: Sequence[GateResult],
    *,
    reason: str = "",
    force: bool = False,
    dry_run: bool = False,
) -> AliasChange:
    """Move an alias to a version that was judged.

    Args:
        seen: Where the alias was when the version was judged.
        version: Which is to be pointed to.
        findings: What the gates say of it.
        reason: Kept in the history.
        force: Move it although a gate was not passed.
        dry_run: Change nothing.

    Raises:
        ConflictError: Somebody moved the alias since.
        RegistryError: A gate is overruled without a reason.
    """
    history = seen.history
    before = None if seen.current is None else seen.current.number
    overruled = bool(refused(findings))
    if force and overruled and not reason.strip():
        raise RegistryError(
            "a gate is overruled without a reason", where="--force", fix="say why: --reason TEXT"
        )
    move = AliasChange(
        history.model.name,
        history.alias,
        before,
        version.number,
        None,
        tuple(findings),
        seen.notes,
        dry_run,
    )
    if dry_run or (overruled and not force):
        return move
    entry = history.next(
        seen.entries,
        "promote",
        before=before,
        after=version.number,
        model_id=version.model_id,
        reason=reason.strip(),
        forced=overruled,
        gates=[finding.brief() for finding in findings],
    )
    _check_unmoved(seen)
    history.claim(entry)
    history.finish_move(entry)
    report = {"alias": history.alias, "entry": entry.number, "gates": [f.as_json() for f in findings]}
    history.registry.tag_version(version, _GATES, json.dumps(report, ensure_ascii=False))
    return _moved(move, entry)


def rollback(
    seen: AliasState, versions: Sequence[Version], *, reason: str = "", dry_run: bool = False
) -> AliasChange:
    """Move an alias back to the champion before the present one.

    Args:
        seen: Where the alias is.
        versions: All there are: one that was deleted is passed over.
        reason: Kept in the history.
        dry_run: Change nothing.

    Raises:
        ConflictError: Somebody moved the alias since it was looked at.
        RegistryError: There was no champion before.
    """
    history = seen.history
    there = {version.number: version for version in versions}
    earlier = [
        entry.after
        for entry in seen.champions[:-1]
        if entry.after in there and (not entry.model_id or there[entry.after].model_id == entry.model_id)
    ]
    current = None if seen.current is None else seen.current.number
    target = next((number for number in reversed(earlier) if number != current), None)
    if target is None:
        raise RegistryError(
            f"there is no earlier {history.alias} to go back to",
            where=history.model.name,
            fix=f"see what there was: nfbmr models history {history.model.name}",
        )
    move = AliasChange(
        history.model.name, history.alias, current, target, None, notes=seen.notes, dry_run=dry_run
    )
    if dry_run:
        return move
    entry = history.next(
        seen.entries,
        "rollback",
        before=current,
        after=target,
        model_id=there[target].model_id,
        reason=reason.strip(),
    )
    _check_unmoved(seen)
    history.claim(entry)
    history.finish_move(entry)
    return _moved(move, entry)


def _moved(move: AliasChange, entry: Entry) -> AliasChange:
    return AliasChange(
        move.name, move.alias, move.before, move.after, entry, move.findings, move.notes, move.dry_run
    )


def _check_unmoved(seen: AliasState) -> None:
    """That the alias still points where it did, and that whoever asks may move it.

    Who may not must not leave an entry that somebody else would then carry out.
    """
    history = seen.history
    history.registry.tag_model(history.model.name, _ASKED, current_user())
    model = history.registry.model(history.model.name)
    now = model.aliases.get(history.alias)
    before = None if seen.current is None else seen.current.number
    if now != before:
        raise ConflictError(
            f"{history.alias} was moved from {_named(before)} to {_named(now)} meanwhile",
            where=f"{model.name}@{history.alias}",
            fix=f"look at it, and do it again if it is still right: nfbmr models history {model.name}",
        )


def _named(number: str | None) -> str:
    return "nothing" if number is None else f"version {number}"
