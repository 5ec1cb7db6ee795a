"""Photographs pages of the built site at a desktop's and at a telephone's width; needs a Chrome or Chromium.

``make site && python docs/make_screenshots.py [FOLDER [PAGE ...]]`` writes PAGE-1280.png and PAGE-390.png; by default
docs/images/site.png alone, the first page.
"""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def photograph(page: Path, image: Path, width: int, height: int) -> None:
    """One page as the browser shows it."""
    browser = next((found for name in NAMES if (found := shutil.which(name))), None)
    if browser is None:
        sys.exit(f"no browser is installed; tried {', '.join(NAMES)}")
    # the browser's own sandbox does not start for root, and the page is our own
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={width},{height}"]
    subprocess.run([browser, *flags, f"--screenshot={image}", page.as_uri()], check=True, stderr=subprocess.DEVNULL)
    print(image)


def main(folder: str = "", *pages: str) -> None:
    site = ROOT / "build" / "site"
    if not folder:
        photograph(site / "index.html", ROOT / "docs" / "images" / "site.png", 1280, 900)
    for page in pages:
        for width in (1280, 390):
            photograph(site / f"{page}.html", Path(folder).absolute() / f"{Path(page).name}-{width}.png", width, 1600)


if __name__ == "__main__":
    main(*sys.argv[1:])
