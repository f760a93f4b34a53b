"""How far a journal has been sent to one destination, kept beside the journal."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from mlflow_server.destination import Destination
from nfbmr import journal
from nfbmr.errors import OutputError
from nfbmr.paths import read_json, write_json


@dataclass
class UploadState:
    """What a destination has acknowledged.

    Attributes:
        uri: Address of the server, without a password.
        experiment: On it.
        experiment_id: MLflow's own name for the experiment.
        mlflow_run_id: MLflow's own name for the run; empty until there is one.
        offset: Bytes of the journal that were dealt with.
        sent: Entries that arrived.
        refused: Entries that the server will never take, each with its reason.
        parent: `run_id` of a parent that the server did not know yet.
        problem: Why the last attempt stopped early; empty where it did not.
    """

    uri: str
    experiment: str
    experiment_id: str = ""
    mlflow_run_id: str = ""
    offset: int = 0
    sent: int = 0
    refused: list[str] = field(default_factory=list)
    parent: str = ""
    problem: str = ""

    @classmethod
    def start(cls, destination: Destination) -> UploadState:
        """Nothing was sent yet."""
        fields = destination.as_fields()
        return cls(fields["uri"], fields["experiment"])

    @classmethod
    def load(cls, folder: Path, destination: Destination) -> UploadState:
        """The cursor of a journal, at the start where there is none or the journal is another one by now."""
        fresh = cls.start(destination)
        path = _path(folder, destination)
        if not path.exists():
            return fresh
        try:
            cursor = cls(**read_json(path))
        except (OutputError, TypeError):
            # Sending again from the start is harmless; guessing where to go on is not.
            return fresh
        file = folder / journal.FILE
        return cursor if file.exists() and cursor.offset <= file.stat().st_size else fresh

    def save(self, folder: Path, destination: Destination) -> None:
        """Write it, whole or not at all."""
        write_json(_path(folder, destination), asdict(self))

    def waiting(self, folder: Path) -> int:
        """How many entries have not been sent yet; a link to a parent counts as one."""
        return sum(1 for _ in journal.entries(folder, self.offset)) + bool(self.parent)


def _path(folder: Path, destination: Destination) -> Path:
    return folder / f"sent-{destination.key}.json"
