"""A Chromium without a window, for pages that a benchmark or a test opens."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--no-first-run",
)


def lacking() -> str:
    """What a browser here lacks, in words; nothing where there is one."""
    if find_spec("selenium") is None:
        return "selenium is not installed"
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        return "there is no Chromium (Debian: chromium and chromium-driver)"
    return ""


@contextmanager
def browser(
    width: int, height: int, *, patience: float, logs: Mapping[str, str] | None = None
) -> Iterator[Any]:
    """A driver of selenium's, with a profile of its own; both are gone afterwards.

    Args:
        width: Of the window, in pixels.
        height: Likewise.
        patience: Seconds that a page may take to load.
        logs: What the browser logs, as ``goog:loggingPrefs`` takes it.
    """
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    if logs:
        options.set_capability("goog:loggingPrefs", dict(logs))
    with tempfile.TemporaryDirectory(prefix="nfbmr-chromium-", ignore_cleanup_errors=True) as profile:
        for flag in (*_FLAGS, f"--window-size={width},{height}", f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        driver.set_page_load_timeout(patience)
        try:
            yield driver
        finally:
            driver.quit()
