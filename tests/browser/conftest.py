"""A real browser: Chromium, driven by Selenium. Without one these tests skip by name, unless TRIMTAB_REQUIRE_BROWSER=1."""

import os
import shutil
from collections.abc import Iterator

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.remote.webdriver import WebDriver

from browser_page import WIDE, resize


@pytest.fixture(scope="session")
def chromium() -> Iterator[WebDriver]:
    """The browser, started once."""
    binary = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        missing = "chromium" if binary is None else "chromedriver"
        if os.environ.get("TRIMTAB_REQUIRE_BROWSER") == "1":
            pytest.fail(
                f"{missing} is not installed, and TRIMTAB_REQUIRE_BROWSER=1; run: apt-get install chromium chromium-driver"
            )
        pytest.skip(f"no browser: {missing} is not installed; run: apt-get install chromium chromium-driver")
    options = Options()
    options.binary_location = binary
    for argument in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium refuses to run as root with it
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(driver))
    yield found
    found.quit()


@pytest.fixture
def browser(chromium: WebDriver) -> Iterator[WebDriver]:
    """An empty page at 1280 pixels; afterwards nothing may stand on its console."""
    resize(chromium, *WIDE)
    chromium.get("about:blank")
    chromium.get_log("browser")
    yield chromium
    said = [entry for entry in chromium.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert not said, said
