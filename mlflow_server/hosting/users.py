"""Users of a server and their roles, in MLflow's own tables.

| role | may |
|---|---|
| reader | look at everything |
| writer | also record runs, make experiments and registered models, and remove runs |
| admin | everything, users among it |

A reader may also be a writer of single experiments. What is changed here counts from the next request on; a
password that was right until now stays so for a few seconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mlflow_server.hosting.database import Database
from nfbmr.errors import ServerError

if TYPE_CHECKING:
    from mlflow.server.auth.entities import Role as StoredRole
    from mlflow.server.auth.entities import User as StoredUser
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

Role = Literal["reader", "writer", "admin"]
"""What a user may do."""

# What each role may do with each kind of thing; a kind without an entry follows what it belongs to.
_GRANTS: dict[str, dict[str, str]] = {
    "reader": {"experiment": "READ", "registered_model": "READ"},
    "writer": {
        "experiment": "EDIT",
        "run": "MANAGE",
        "logged_model": "MANAGE",
        "registered_model": "EDIT",
        "registered_model_version": "EDIT",
    },
}
_CHANGING = ("EDIT", "MANAGE")
_WORKSPACE = "default"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


@dataclass(frozen=True)
class User:
    """A user.

    Attributes:
        name: That they log in with.
        role: None for one who was made in another way and may do nothing.
        experiments: Names of experiments that a reader may write to.
    """

    name: str
    role: Role | None
    experiments: tuple[str, ...] = ()


class Users:
    """The users of a server.

    Args:
        database: Of the server; its tables of users are made where they are missing.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._store = _store(database)
        for role, grants in _GRANTS.items():
            self._make_role(role, grants)

    def list(self) -> list[User]:
        """All users, by name."""
        names = self._experiment_names()
        users = [
            User(stored.username, _role_of(stored, roles), _experiments(roles, names))
            for stored, roles in self._store.list_users_with_roles()
        ]
        return sorted(users, key=lambda user: user.name)

    def has_administrator(self) -> bool:
        """Whether anybody may manage the server."""
        return any(user.is_admin for user in self._store.list_users())

    def add(self, name: str, password: str, role: Role) -> None:
        """Make a user.

        Raises:
            ServerError: There is one of that name, or it cannot be a name.
        """
        if not _NAME.fullmatch(name):
            raise ServerError(
                "not a user name",
                where=name,
                fix="use letters, digits and . _ @ -, beginning with a letter or a digit",
            )
        if self._store.has_user(name):
            raise ServerError(
                "there is a user of this name already",
                where=name,
                fix="nfbmr server users grant changes a role",
            )
        self._store.create_user(name, password, is_admin=role == "admin")
        if role != "admin":
            self._assign(self._store.get_user(name), role)

    def remove(self, name: str) -> None:
        """Remove a user; what they recorded stays.

        Raises:
            ServerError: There is none of that name, or nobody would be left to manage the server.
        """
        self._keep_an_administrator(self._find(name))
        self._store.delete_user(name)

    def change_password(self, name: str, password: str) -> None:
        """Give a user another password.

        Raises:
            ServerError: There is none of that name.
        """
        self._find(name)
        self._store.update_user(name, password=password)

    def grant(self, name: str, role: Role, experiment: str | None = None) -> None:
        """Give a user a role instead of the one they have; a single experiment's, beside it.

        Args:
            name: Of the user.
            role: What they may do from now on. The rights to what they made themselves go with the old role.
            experiment: Name of the only experiment that the role is for: ``writer``, or ``reader`` to take
                it back.

        Raises:
            ServerError: There is no such user or experiment, or nobody would be left to manage the server.
        """
        user = self._find(name)
        if experiment is not None:
            self._grant_experiment(user, role, experiment)
            return
        if role != "admin":
            self._keep_an_administrator(user)
        for assigned in self._store.list_user_roles(user.id):
            if assigned.name in _GRANTS:
                self._store.unassign_role_from_user(user.id, assigned.id)
            elif assigned.name == f"__user_{user.id}__":  # MLflow's, for the rights of one user
                for permission in assigned.permissions:
                    self._store.remove_role_permission(permission.id)
        self._store.update_user(name, is_admin=role == "admin")
        if role != "admin":
            self._assign(user, role)

    def _grant_experiment(self, user: StoredUser, role: Role, experiment: str) -> None:
        ids = {known: number for number, known in self._experiment_names().items()}
        if experiment not in ids:
            from nfbmr.fields import did_you_mean

            raise ServerError(
                f"there is no experiment of this name{did_you_mean(experiment, ids)}",
                where=experiment,
                fix="its name is the setting tracking.experiment of the runs, nfbmr by default",
            )
        if role == "admin":
            raise ServerError(
                "nobody is the administrator of one experiment", where=user.username, fix="grant writer"
            )
        if role == "writer":
            self._store.grant_user_resource_permission(user.username, "experiment", ids[experiment], "EDIT")
        elif any(each.name == user.username and experiment in each.experiments for each in self.list()):
            self._store.revoke_user_resource_permission(user.username, "experiment", ids[experiment])

    def _find(self, name: str) -> StoredUser:
        names = {user.username: user for user in self._store.list_users()}
        if name not in names:
            from nfbmr.fields import did_you_mean

            raise ServerError(
                f"there is no user of this name{did_you_mean(name, names)}",
                where=name,
                fix="nfbmr server users list",
            )
        return names[name]

    def _keep_an_administrator(self, user: StoredUser) -> None:
        if user.is_admin and sum(each.is_admin for each in self._store.list_users()) == 1:
            raise ServerError(
                "nobody would be left to manage the server",
                where=user.username,
                fix="make another administrator first: nfbmr server users grant NAME admin",
            )

    def _make_role(self, name: str, grants: dict[str, str]) -> None:
        there = {role.name: role for role in self._store.list_roles([_WORKSPACE])}
        role = there.get(name) or self._store.create_role(name, _WORKSPACE, f"nfbmr: {name}")
        have = {each.resource_type: each for each in role.permissions if each.resource_pattern == "*"}
        for kind, permission in grants.items():
            if kind not in have:
                self._store.add_role_permission(role.id, kind, "*", permission)
            elif have[kind].permission != permission:
                self._store.update_role_permission(have[kind].id, permission)

    def _assign(self, user: StoredUser, role: str) -> None:
        self._store.assign_role_to_user(user.id, self._store.get_role_by_name(_WORKSPACE, role).id)

    def _experiment_names(self) -> dict[str, str]:
        """Names of experiments by their number."""
        import sqlalchemy as sa

        if "experiments" not in self._database.tables():
            return {}
        with self._database.connection() as connection:
            rows = connection.execute(sa.text("SELECT experiment_id, name FROM experiments"))
            return {str(number): name for number, name in rows}


def creators_in(store: SqlAlchemyStore) -> Callable[[str], bool | None]:
    """What the guard asks of a name, answered as the database is right now; see :class:`Guard`."""
    from mlflow.exceptions import MlflowException

    def may_create(name: str) -> bool | None:
        try:
            user = store.get_user(name)
        except MlflowException:
            return None
        return bool(user.is_admin) or any(role.name == "writer" for role in store.list_user_roles(user.id))

    return may_create


def _store(database: Database) -> SqlAlchemyStore:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

        store = SqlAlchemyStore()
        store.init_db(database.backend.uri)  # type: ignore[no-untyped-call]
    return store


def _role_of(user: Any, roles: list[StoredRole]) -> Role | None:
    if user.is_admin:
        return "admin"
    names = {role.name for role in roles}
    return "writer" if "writer" in names else "reader" if "reader" in names else None


def _experiments(roles: list[StoredRole], names: dict[str, str]) -> tuple[str, ...]:
    writable = {
        names.get(permission.resource_pattern, permission.resource_pattern)
        for role in roles
        for permission in role.permissions
        if permission.resource_type == "experiment"
        and permission.resource_pattern != "*"
        and permission.permission in _CHANGING
    }
    return tuple(sorted(writable))
