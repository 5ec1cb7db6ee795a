"""What tests do with a browser: sizes, waiting, and pages on disk."""

from collections.abc import Callable
from pathlib import Path

from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.ui import WebDriverWait

WIDE, NARROW = (1280, 900), (390, 844)
SECONDS = 20


def resize(browser: WebDriver, width: int, height: int, *, dark: bool = False) -> None:
    """Make the page this large, in CSS pixels, and light or dark."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def until(browser: WebDriver, true: Callable[[WebDriver], object]) -> object:
    """Wait until something is true of the page, and return it; a part that the page replaces meanwhile is looked for again."""
    replaced = (NoSuchElementException, StaleElementReferenceException)
    return WebDriverWait(browser, SECONDS, poll_frequency=0.03, ignored_exceptions=replaced).until(true)


def saved(folder: Path, page: str) -> str:
    """The address of a page on disk."""
    path = folder / "view.html"
    path.write_text(page, "utf-8")
    return path.as_uri()
