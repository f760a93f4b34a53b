"""An alias moves in one step, by one of those who want to move it, and its history tells every move."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from mlflow_server.destination import Destination
from mlflow_server.registry.gate_result import GateResult
from mlflow_server.registry.history import TAG, Entry, History, begin, champions
from mlflow_server.registry.promotion import alias_state, promote, rollback
from mlflow_server.registry.registry import HISTORY_RUN, Registry
from nfbmr.errors import ConflictError, RegistryError

GOOD = GateResult("size", True, 14.0, 500.0, "14.0 MB in all; 500 are allowed")
BAD = GateResult("latency", False, 2000.0, 1000.0, "2000 ms an image; 1000 are allowed")


def move(registry: Registry, number: str, **options: Any) -> Any:
    seen = alias_state(registry, "parts", "champion")
    return promote(seen, registry.version("parts", number), (GOOD,), **options)


def champion(registry: Registry) -> str | None:
    return registry.model("parts").aliases.get("champion")


def entries(registry: Registry) -> list[Entry]:
    return list(alias_state(registry, "parts", "champion", mend=False).entries)


def test_a_walk_from_nothing_to_a_champion_and_back(registry: Registry) -> None:
    assert champion(registry) is None
    first = move(registry, "1", reason="the first one")
    assert (first.before, first.after, champion(registry)) == (None, "1", "1")
    move(registry, "2")
    move(registry, "3")
    back = rollback(
        alias_state(registry, "parts", "champion"), registry.versions("parts"), reason="line 3 complains"
    )
    assert (back.before, back.after, champion(registry)) == ("3", "2", "2")
    again = rollback(alias_state(registry, "parts", "champion"), registry.versions("parts"))
    assert (again.before, again.after, champion(registry)) == ("2", "1", "1")
    with pytest.raises(RegistryError, match="no earlier champion"):
        rollback(alias_state(registry, "parts", "champion"), registry.versions("parts"))
    history = [(entry.action, entry.before, entry.after) for entry in entries(registry)]
    assert history == [
        ("promote", None, "1"),
        ("promote", "1", "2"),
        ("promote", "2", "3"),
        ("rollback", "3", "2"),
        ("rollback", "2", "1"),
    ]
    assert entries(registry)[0].reason == "the first one"
    assert entries(registry)[3].reason == "line 3 complains"
    assert all("@" in entry.by and entry.time for entry in entries(registry))


def test_aliases_have_histories_of_their_own(registry: Registry) -> None:
    move(registry, "1")
    seen = alias_state(registry, "parts", "candidate")
    promote(seen, registry.version("parts", "2"), (GOOD,))
    assert registry.model("parts").aliases == {"champion": "1", "candidate": "2"}
    assert [entry.after for entry in entries(registry)] == ["1"]


def test_the_history_is_seen_on_the_registered_model_and_the_gates_on_the_version(registry: Registry) -> None:
    move(registry, "1")
    tags = registry.model("parts").tags
    assert '"after": "1"' in tags[f"{TAG}.champion.000001"]
    assert "14.0 MB" in registry.version("parts", "1").tags["nfbmr.gates"]


def test_a_refused_version_moves_nothing_and_leaves_no_trace(registry: Registry) -> None:
    move(registry, "1")
    seen = alias_state(registry, "parts", "champion")
    refused = promote(seen, registry.version("parts", "2"), (GOOD, BAD))
    assert refused.entry is None
    assert [finding.gate for finding in refused.refused] == ["latency"]
    assert champion(registry) == "1"
    assert len(entries(registry)) == 1


def test_force_needs_a_reason_which_stays_in_the_history(registry: Registry) -> None:
    seen = alias_state(registry, "parts", "champion")
    version = registry.version("parts", "1")
    with pytest.raises(RegistryError, match="without a reason"):
        promote(seen, version, (BAD,), force=True, reason="  ")
    forced = promote(seen, version, (BAD,), force=True, reason="the old camera is gone")
    assert forced.entry.forced
    (entry,) = entries(registry)
    assert (entry.forced, entry.reason) == (True, "the old camera is gone")
    assert entry.gates[0]["gate"] == "latency"
    assert entry.gates[0]["measured"] == 2000.0


def test_force_that_overrules_nothing_is_not_marked(registry: Registry) -> None:
    forced = promote(
        alias_state(registry, "parts", "champion"), registry.version("parts", "1"), (GOOD,), force=True
    )
    assert not forced.entry.forced


def test_a_dry_run_changes_nothing(registry: Registry) -> None:
    move(registry, "1")
    move(registry, "2")
    before = registry.model("parts")
    tried = move(registry, "3", dry_run=True)
    assert (tried.entry, tried.before, tried.after) == (None, "2", "3")
    seen = alias_state(registry, "parts", "champion", mend=False)
    back = rollback(seen, registry.versions("parts"), dry_run=True)
    assert (back.entry, back.before, back.after) == (None, "2", "1")
    assert registry.model("parts") == before


def test_a_long_reason_and_many_findings_fit(registry: Registry) -> None:
    many = [GateResult(f"gate-{n}", False, "x" * 400, "y" * 400, "z") for n in range(20)]
    moved = promote(
        alias_state(registry, "parts", "champion"),
        registry.version("parts", "1"),
        many,
        force=True,
        reason="because " * 500,
    )
    (entry,) = entries(registry)
    assert entry.reason == moved.entry.reason
    assert len(entry.gates) == 20


# Two at once


def test_whoever_comes_second_is_told(registry: Registry) -> None:
    seen = alias_state(registry, "parts", "champion")
    move(registry, "1")
    with pytest.raises(ConflictError, match="from nothing to version 1 meanwhile"):
        promote(seen, registry.version("parts", "2"), (GOOD,))
    assert champion(registry) == "1"
    assert len(entries(registry)) == 1


def test_between_the_last_look_and_the_entry_one_wins_too(registry: Registry) -> None:
    seen = alias_state(registry, "parts", "champion")
    first = seen.history.next(seen.entries, "promote", before=None, after="1")
    second = seen.history.next(seen.entries, "promote", before=None, after="2")
    seen.history.claim(first)
    seen.history.claim(first)  # a repeated request of the same is no other
    with pytest.raises(ConflictError, match="from nothing to version 1 meanwhile"):
        seen.history.claim(second)
    seen.history.finish_move(first)
    assert champion(registry) == "1"


def race(uri: str, contestants: int = 6) -> tuple[list[str], list[str]]:
    """Everybody promotes at once, having seen the same; who won, and what the others were told."""
    barrier = threading.Barrier(contestants)
    won: list[str] = []
    told: list[str] = []

    def contend(index: int) -> None:
        registry = Registry(Destination.resolve(uri))
        seen = alias_state(registry, "parts", "champion")
        version = registry.version("parts", str(index % 3 + 1))
        barrier.wait(60)
        try:
            won.append(promote(seen, version, (GOOD,), reason=str(index)).entry.reason)
        except ConflictError as error:
            told.append(error.what)

    threads = [threading.Thread(target=contend, args=(index,)) for index in range(contestants)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return won, told


def test_of_several_at_once_exactly_one_wins(stock: str, registry: Registry) -> None:
    for number in range(1, 4):
        won, told = race(stock)
        assert len(won) == 1
        assert len(told) == 5
        assert all("meanwhile" in text for text in told)
        history = entries(registry)
        assert len(history) == number
        assert history[-1].reason == won[0]
        assert champion(registry) == history[-1].after


@pytest.mark.slow
def test_of_several_at_once_on_a_server_exactly_one_wins(stock: str, serve: Any, free_port: int) -> None:
    address = serve(stock, free_port)
    won, told = race(address)
    assert (len(won), len(told)) == (1, 5)
    registry = Registry(Destination.resolve(address))
    assert champion(registry) == entries(registry)[-1].after


# Cut short, or moved by others


def test_a_move_that_was_cut_short_is_finished_by_the_next_command(registry: Registry) -> None:
    move(registry, "1")
    seen = alias_state(registry, "parts", "champion")
    cut = seen.history.next(seen.entries, "promote", before="1", after="2", model_id="")
    seen.history.claim(cut)  # and here the process was killed
    assert champion(registry) == "1"
    looked = alias_state(registry, "parts", "champion", mend=False)
    assert champion(registry) == "1"
    assert "cut short" in looked.notes[0]
    finished = alias_state(registry, "parts", "champion")
    assert champion(registry) == "2"
    assert finished.current.number == "2"
    assert "finished" in finished.notes[0]
    assert alias_state(registry, "parts", "champion").notes == ()


def test_a_promotion_judged_against_the_old_champion_is_told_of_one_that_was_cut_short(
    registry: Registry,
) -> None:
    move(registry, "1")
    seen = alias_state(registry, "parts", "champion")
    seen.history.claim(seen.history.next(seen.entries, "promote", before="1", after="2"))
    with pytest.raises(ConflictError, match="from version 1 to version 2 meanwhile"):
        promote(seen, registry.version("parts", "3"), (GOOD,))


def test_whoever_was_slow_does_not_undo_a_later_move(registry: Registry) -> None:
    seen = alias_state(registry, "parts", "champion")
    slow = seen.history.next(seen.entries, "promote", before=None, after="1")
    seen.history.claim(slow)  # ... and stops to think
    move(registry, "2")
    assert champion(registry) == "2"
    seen.history.finish_move(slow)
    assert champion(registry) == "2"
    assert [entry.after for entry in entries(registry)] == ["1", "2"]


def test_a_move_made_without_nfbmr_is_found_and_written_down(registry: Registry) -> None:
    move(registry, "1")
    registry.client.set_registered_model_alias("parts", "champion", "3")
    seen = alias_state(registry, "parts", "champion")
    assert "points to version 3, and nfbmr left it at version 1" in seen.notes[0]
    moved = move(registry, "2")
    assert moved.before == "3"
    history = [(entry.action, entry.before, entry.after) for entry in entries(registry)]
    assert history == [("promote", None, "1"), ("found", "1", "3"), ("promote", "3", "2")]
    back = rollback(alias_state(registry, "parts", "champion"), registry.versions("parts"))
    assert back.after == "3"


def test_a_version_that_was_deleted_before_the_alias_could_follow(registry: Registry) -> None:
    move(registry, "1")
    seen = alias_state(registry, "parts", "champion")
    cut = seen.history.next(seen.entries, "promote", before="1", after="2", model_id="m-gone")
    seen.history.claim(cut)
    registry.client.delete_model_version("parts", "2")
    with pytest.raises(RegistryError):
        seen.history.finish_move(cut)
    assert champion(registry) == "1"
    again = alias_state(registry, "parts", "champion")
    assert again.current.number == "1"
    moved = move(registry, "3")
    assert (moved.before, champion(registry)) == ("1", "3")


@pytest.mark.parametrize("alias", ["latest", "v2", "V12", "", "a b", "a/b", "3"])
def test_what_cannot_be_an_alias_leaves_no_entry(registry: Registry, alias: str) -> None:
    with pytest.raises(RegistryError, match="not an alias"):
        alias_state(registry, "parts", alias)


def test_moved_by_hand_while_a_version_is_judged(registry: Registry) -> None:
    move(registry, "1")
    seen = alias_state(registry, "parts", "champion")
    registry.client.set_registered_model_alias("parts", "champion", "3")
    with pytest.raises(ConflictError, match="from version 1 to version 3"):
        promote(seen, registry.version("parts", "2"), (GOOD,))
    assert champion(registry) == "3"


def test_an_alias_that_was_deleted_by_hand(registry: Registry) -> None:
    move(registry, "1")
    registry.client.delete_registered_model_alias("parts", "champion")
    seen = alias_state(registry, "parts", "champion")
    assert seen.current is None
    assert move(registry, "2").before is None
    back = rollback(alias_state(registry, "parts", "champion"), registry.versions("parts"))
    assert back.after == "1"


def test_rolling_back_passes_over_versions_that_were_deleted(registry: Registry) -> None:
    for number in ("1", "2", "3"):
        move(registry, number)
    registry.client.delete_model_version("parts", "2")
    back = rollback(alias_state(registry, "parts", "champion"), registry.versions("parts"))
    assert (back.before, back.after) == ("3", "1")


def test_a_number_is_given_once_as_long_as_the_registered_model_is_there(
    empty_database: Path, tmp_path: Path
) -> None:
    """Why a history also keeps the model's name: by a number alone, version 1 would be two models."""
    shutil.copyfile(empty_database, tmp_path / "mlflow.db")
    client = Registry(Destination.resolve(f"sqlite:///{tmp_path / 'mlflow.db'}")).client

    def number() -> str:
        return str(client.create_model_version("parts", source=str(tmp_path)).version)

    client.create_registered_model("parts")
    assert [number(), number()] == ["1", "2"]
    client.delete_model_version("parts", "2")
    assert number() == "3"
    client.delete_registered_model("parts")
    client.create_registered_model("parts")
    assert number() == "1"


# The history itself


def test_an_entry_cannot_be_changed(registry: Registry) -> None:
    from mlflow.exceptions import MlflowException

    move(registry, "1")
    run_id = registry.model("parts").tags[HISTORY_RUN]
    with pytest.raises(MlflowException, match="Changing param values is not allowed"):
        registry.client.log_param(run_id, "champion/000001", "{}")


def test_a_deleted_history_is_said_and_can_be_restored(registry: Registry) -> None:
    move(registry, "1")
    run_id = registry.model("parts").tags[HISTORY_RUN]
    registry.client.delete_run(run_id)
    with pytest.raises(RegistryError, match="was deleted") as caught:
        alias_state(registry, "parts", "champion")
    assert run_id in caught.value.fix
    registry.client.restore_run(run_id)
    assert len(entries(registry)) == 1


def test_a_history_that_was_deleted_for_good_comes_back_from_the_models_tags(registry: Registry) -> None:
    move(registry, "1")
    move(registry, "2")
    before = entries(registry)
    run_id = registry.model("parts").tags[HISTORY_RUN]
    registry.client._tracking_client.store._hard_delete_run(run_id)
    with pytest.raises(RegistryError, match="was deleted"):
        alias_state(registry, "parts", "champion")
    begin(registry, "parts")
    assert entries(registry) == before
    move(registry, "3")
    assert [entry.number for entry in entries(registry)] == [1, 2, 3]


def test_a_model_that_was_registered_without_nfbmr_gets_a_history(registry: Registry) -> None:
    registry.client.create_registered_model("foreign")
    with pytest.raises(RegistryError, match="without nfbmr"):
        History(registry, registry.model("foreign"), "champion")
    begin(registry, "foreign")
    assert alias_state(registry, "foreign", "champion").entries == ()


def test_of_two_who_make_a_registered_model_at_once_both_have_one_history(stock: str) -> None:
    barrier = threading.Barrier(4)
    found: list[str] = []

    def make() -> None:
        registry = Registry(Destination.resolve(stock))
        barrier.wait(60)
        found.append(begin(registry, "new").tags[HISTORY_RUN])

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1


def test_champions_are_those_that_were_not_rolled_back() -> None:
    def after(*moves: tuple[str, str | None, str | None]) -> list[str | None]:
        return [entry.after for entry in champions([Entry(n, *move) for n, move in enumerate(moves, 1)])]

    up = [("promote", None, "1"), ("promote", "1", "2"), ("promote", "2", "3")]
    assert after(*up) == ["1", "2", "3"]
    assert after(*up, ("rollback", "3", "1")) == ["1"]
    assert after(*up, ("promote", "3", "1")) == ["1", "2", "3", "1"]
    assert after(*up, ("found", "3", None), ("promote", None, "2")) == ["1", "2", "3", "2"]
    assert after() == []
