"""MLflow's application with the guard in front, made in the process that serves it.

MLflow is set up through environment variables that it reads while it is imported. They are set inside the
process, so that neither a password nor the key is in the environment that other programs are shown.
"""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow_server.hosting.database import quiet_mlflow
from mlflow_server.hosting.guard import App, Guard
from mlflow_server.hosting.settings import ServerSettings

CREDENTIALS_SECONDS = 10
"""How long a password that was right is taken for right without being worked out again."""


@dataclass(frozen=True)
class Application:
    """Makes the application; it travels to worker processes.

    Args:
        settings: Of the server.
        key: The secret key; empty where nobody is asked who they are.
    """

    settings: ServerSettings
    key: str = field(default="", repr=False)

    def load(self) -> None:
        """Import MLflow as this server's; nothing else may have imported its server before."""
        settings = self.settings
        quiet_mlflow()
        _set_up_mlflow(settings)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the libraries among each other
            if settings.authentication:
                _import_with_users(settings, self.key)
            else:
                import mlflow.server.fastapi_app  # noqa: F401

    def __call__(self) -> App:
        """The application, in the process that serves it."""
        self.load()
        settings = self.settings
        limits: dict[str, Any] = {"origins": settings.origins, "max_upload": settings.max_upload}
        if not settings.authentication:
            from mlflow.server import fastapi_app

            return Guard(fastapi_app.app, **limits)
        from mlflow.server import auth

        from mlflow_server.hosting.users import creators_in

        return Guard(auth.create_app(), may_create=creators_in(auth.store), **limits)


def _import_with_users(settings: ServerSettings, key: str) -> None:
    os.environ["MLFLOW_FLASK_SERVER_SECRET_KEY"] = key
    os.environ["_MLFLOW_AUTH_ADMIN_BOOTSTRAPPED"] = "true"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "auth.ini"
        file.touch(mode=0o600)
        file.write_text(_users_configuration(settings), encoding="utf-8")
        os.environ["MLFLOW_AUTH_CONFIG_PATH"] = str(file)
        try:
            import mlflow.server.auth  # noqa: F401
        finally:
            del os.environ["MLFLOW_AUTH_CONFIG_PATH"]
    logging.getLogger("mlflow.server.auth").addFilter(_not_experimental)


def _set_up_mlflow(settings: ServerSettings) -> None:
    os.environ.update(
        {
            "_MLFLOW_SERVER_FILE_STORE": settings.backend.uri,
            "_MLFLOW_SERVER_REGISTRY_STORE": settings.backend.uri,
            "_MLFLOW_SERVER_ARTIFACT_ROOT": settings.artifact_root,
            "_MLFLOW_SERVER_ARTIFACT_DESTINATION": settings.artifacts_destination,
            "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
            "_MLFLOW_SGI_NAME": "uvicorn",
            "_MLFLOW_IN_JOB_EXECUTOR": "false",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_ENABLE_WORKSPACES": "false",
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            "MLFLOW_ENABLE_REMOTE_ASSISTANT": "false",
            "MLFLOW_BASIC_AUTH_FAIL_CLOSED": "true",
            "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "false",
            "MLFLOW_SERVER_X_FRAME_OPTIONS": "SAMEORIGIN",
            "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(settings.hosts),
            # The guard has compared them with the name and the port that were asked for.
            "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": ",".join(
                pattern for origin in settings.origins for pattern in (origin, f"{origin}:*")
            ),
        }
    )


def _users_configuration(settings: ServerSettings) -> str:
    address = settings.backend.uri.replace("%", "%%")
    return (
        "[mlflow]\n"
        # What a user may do is in their role, and nothing else is.
        "default_permission = NO_PERMISSIONS\n"
        f"database_uri = {address}\n"
        "admin_username = admin\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        f"auth_cache_ttl_seconds = {CREDENTIALS_SECONDS}\n"
    )


def _not_experimental(record: logging.LogRecord) -> bool:
    return "experimental" not in record.getMessage()
