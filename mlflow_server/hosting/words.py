"""What a server says in its log, without what must not be said there."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from urllib.parse import quote, unquote


class Censor(logging.Filter):
    """Takes secrets out of everything that is logged.

    Args:
        secrets: Never to be shown.

    Example:
        >>> Censor(["geheim12geheim"]).clean("postgresql://ann:geheim12geheim@db/mlflow")
        'postgresql://ann:***@db/mlflow'
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__()
        self._secrets = sorted({form for each in secrets for form in _forms(each)}, key=len, reverse=True)

    def clean(self, text: str) -> str:
        """The text without secrets."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def filter(self, record: logging.LogRecord) -> bool:
        """Clean a message, and the traceback that goes with it."""
        if not self._secrets:
            return True
        record.msg, record.args = self.clean(record.getMessage()), None
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = self.clean(record.exc_text)
        return True

    def watch(self) -> None:
        """Stand at every handler that there is."""
        loggers = [logging.getLogger(), *map(logging.getLogger, list(logging.root.manager.loggerDict))]
        for handler in {handler for each in loggers for handler in each.handlers}:
            if self not in handler.filters:
                handler.addFilter(self)


def _forms(secret: str) -> set[str]:
    return {form for form in (secret, quote(secret, safe=""), unquote(secret)) if form}
