"""What became of a registered model's aliases: an append-only history that also decides who promotes.

MLflow moves an alias in one step, and has no step that moves it only if it still points where it did. What it
does have are parameters of a run: the first to write one wins, whoever comes second with another value is
refused, and nobody can change or remove it. So each registered model has a run of its own whose parameters
``champion/000001``, ``champion/000002``, ... are the entries of the history. Writing entry n is the decision;
the alias follows it. (Registers that can only be read and overwritten, as tags are, could not decide it:
Herlihy 1991.)

Each entry is also a tag of the registered model, ``nfbmr.history.champion.000001``: there people see it, and
from there the history is restored if its run was deleted for good.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mlflow_server.naming import PARAM_LENGTH
from mlflow_server.registry.registry import HISTORY_RUN, Registered, Registry
from nfbmr.errors import ConflictError, RegistryError

if TYPE_CHECKING:
    from mlflow.entities import Run

_EXPERIMENT = "nfbmr-history"
TAG = "nfbmr.history"
"""What the tags of a registered model begin with that repeat its history."""
_LONGEST_REASON = 1000


@dataclass(frozen=True)
class Entry:
    """One move of an alias.

    Attributes:
        number: From 1.
        action: ``promote``, ``rollback``, or ``found``: somebody moved it without nfbmr, and it was noticed.
        before: The version that the alias pointed to; None where there was none.
        after: The one that it points to since.
        model_id: MLflow's name for the model of `after`; a number alone would be another version's once
            the registered model is deleted and made anew.
        by: Who did it, and where.
        time: In milliseconds since 1970.
        reason: What was given as such.
        forced: Whether a gate was overruled.
        gates: What each gate said: its name, what was measured, the limit, whether it was passed.
        key: Tells this entry from another with the same content.
    """

    number: int
    action: str
    before: str | None
    after: str | None
    model_id: str = ""
    by: str = ""
    time: int = 0
    reason: str = ""
    forced: bool = False
    gates: Sequence[Mapping[str, Any]] = ()
    key: str = field(default_factory=lambda: uuid.uuid4().hex[:12])

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self) | {"gates": [dict(gate) for gate in self.gates]}

    def text(self) -> str:
        """As it is kept; what does not fit is left out of the gates first."""
        whole = json.dumps(self.as_json(), ensure_ascii=False)
        if len(whole) <= PARAM_LENGTH:
            return whole
        brief = [{"gate": gate.get("gate"), "passed": gate.get("passed")} for gate in self.gates]
        return json.dumps(self.as_json() | {"gates": brief}, ensure_ascii=False)


def champions(entries: Sequence[Entry]) -> list[Entry]:
    """The entries whose versions followed each other and were not rolled back: the last one is the present.

    Example:
        >>> moves = [("promote", None, "1"), ("promote", "1", "2"), ("rollback", "2", "1")]
        >>> [one.after for one in champions([Entry(n, *move) for n, move in enumerate(moves, 1)])]
        ['1']
    """
    stack: list[Entry] = []
    for entry in entries:
        if entry.action == "rollback":
            while stack and stack[-1].after != entry.after:
                stack.pop()
            if stack:
                continue
        if entry.after is not None:
            stack.append(entry)
    return stack


class History:
    """The history of one alias of a registered model.

    Args:
        registry: Where the model is registered.
        model: The registered model, as it is now.
        alias: Which.

    Raises:
        RegistryError: No history is kept with the model.
    """

    def __init__(self, registry: Registry, model: Registered, alias: str) -> None:
        self.registry, self.model, self.alias = registry, model, alias
        self._run_id = model.tags.get(HISTORY_RUN, "")
        if not self._run_id:
            raise RegistryError(
                "no history is kept with this model: it was registered without nfbmr",
                where=model.name,
                fix=f"nfbmr models register RUN --name {model.name} begins one",
            )

    def entries(self) -> list[Entry]:
        """All of them, the first one first.

        Raises:
            RegistryError: The history's run was deleted.
        """
        params = self._params()
        entries: list[Entry] = []
        while (text := params.get(self._key(len(entries) + 1))) is not None:
            entries.append(Entry(**json.loads(text)))
        return entries

    def carried_out(self, entry: Entry) -> bool:
        """Whether the alias was seen to have followed an entry."""
        return f"{self._key(entry.number)}/done" in self._params()

    def claim(self, entry: Entry) -> None:
        """Write the next entry.

        Raises:
            ConflictError: Somebody else wrote it first.
            RegistryError: The registry cannot be used now.
        """
        text = entry.text()
        if not self._write(self._key(entry.number), text):
            other = self.entries()[entry.number - 1]
            moved = f"moved {self.alias} from {_named(other.before)} to {_named(other.after)}"
            raise ConflictError(
                f"{other.by} {moved} meanwhile",
                where=f"{self.model.name}@{self.alias}",
                fix="look at it, and do it again if it is still right: "
                f"nfbmr models history {self.model.name}",
            )

    def finish_move(self, entry: Entry) -> None:
        """Let the alias follow the newest entry, and write down that it did. Anybody may, and more than once.

        Whoever was slow sets the alias to what a later entry has replaced already. They look again
        afterwards, as this does, and mend it.
        """
        while True:
            newest = self.entries()[-1]
            if newest.after is not None:
                self.registry.set_alias(self.model.name, self.alias, newest.after)
            if self.entries()[-1].number == newest.number:
                break
        for each in {entry.number: entry, newest.number: newest}.values():
            self._write(f"{self._key(each.number)}/done", "yes")
            self.registry.tag_model(self.model.name, f"{TAG}.{self._key(each.number, '.')}", each.text())

    def next(self, entries: Sequence[Entry], action: str, **what: Any) -> Entry:
        """The entry that would come next."""
        made = Entry(
            number=len(entries) + 1, action=action, by=current_user(), time=int(time.time() * 1000), **what
        )
        return replace(made, reason=made.reason[:_LONGEST_REASON])

    def _key(self, number: int, between: str = "/") -> str:
        return f"{self.alias}{between}{number:06d}"

    def _params(self) -> dict[str, str]:
        with self.registry.asking():
            run = _run(self.registry, self._run_id)
        if run is None or run.info.lifecycle_stage == "deleted":
            again = f"nfbmr models register RUN --name {self.model.name} begins one from the model's tags"
            raise RegistryError(
                "the run that keeps this model's history was deleted",
                where=f"{self.model.name}, run {self._run_id}",
                fix=again if run is None else f"mlflow runs restore --run-id {self._run_id}",
            )
        return dict(run.data.params)

    def _write(self, key: str, text: str) -> bool:
        """Write a parameter once; whether it holds this text now."""
        from mlflow.exceptions import MlflowException

        with self.registry.asking():
            try:
                self.registry.client.log_param(self._run_id, key, text, synchronous=True)
            except MlflowException as error:
                if error.error_code != "INVALID_PARAMETER_VALUE":
                    raise
                held = self._params().get(key)
                if held is None:
                    raise
                return held == text
        return True


def begin(registry: Registry, name: str, description: str = "") -> Registered:
    """A registered model with a history: made, or given one, or left as it is."""
    model = registry.find(name)
    known = None if model is None else model.tags.get(HISTORY_RUN)
    if model is not None and known is not None:
        with registry.asking():
            if _run(registry, known) is not None:
                return model
    run_id = _new_run(registry, name)
    if model is None:
        # The tag comes with the model in one step: of two who make it at once, one did.
        if not registry.create(name, description, {HISTORY_RUN: run_id}):
            with registry.asking():
                registry.client.delete_run(run_id)
            return begin(registry, name, description)
    else:
        _restore(registry, model, run_id)
        registry.tag_model(name, HISTORY_RUN, run_id)
    return registry.model(name)


def current_user() -> str:
    """Who does this, and where, as far as this machine knows."""
    import getpass
    import socket

    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = "somebody"
    return f"{user}@{socket.gethostname()}"


def _named(version: str | None) -> str:
    return "nothing" if version is None else f"version {version}"


def _run(registry: Registry, run_id: str) -> Run | None:
    from mlflow.exceptions import MlflowException

    try:
        return registry.client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def _new_run(registry: Registry, name: str) -> str:
    from mlflow.exceptions import MlflowException

    client = registry.client
    with registry.asking():
        try:
            client.create_experiment(_EXPERIMENT, registry.destination.artifact_location)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        experiment = client.get_experiment_by_name(_EXPERIMENT)
        if experiment is None or experiment.lifecycle_stage == "deleted":
            raise RegistryError(
                "the experiment that keeps the histories was deleted", where=_EXPERIMENT, fix="restore it"
            )
        note = f"The history of the registered model {name}: one parameter a move of an alias. Leave it be."
        run = client.create_run(
            experiment.experiment_id,
            run_name=f"history of {name}",
            tags={"nfbmr.history_of": name, "mlflow.note.content": note},
        )
        client.set_terminated(run.info.run_id)
    return str(run.info.run_id)


def _restore(registry: Registry, model: Registered, run_id: str) -> None:
    """Write into a new run what the model's tags say of its history."""
    for tag, text in sorted(model.tags.items()):
        alias, _, number = tag.removeprefix(f"{TAG}.").rpartition(".")
        if tag.startswith(f"{TAG}.") and alias:
            with registry.asking():
                registry.client.log_param(run_id, f"{alias}/{number}", text, synchronous=True)
                registry.client.log_param(run_id, f"{alias}/{number}/done", "yes", synchronous=True)
