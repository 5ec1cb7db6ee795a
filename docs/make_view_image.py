"""Draw docs/images/view.png: ``python docs/make_view_image.py RUN [PROBLEM]`` photographs ``RUN/view.html`` in Chromium."""

import shutil
import sys
import time
from io import BytesIO
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

IMAGE = Path(__file__).parent / "images" / "view.png"
WIDTH, HEIGHT, SCALE = 1280, 905, 1.5
COLOURS = 128  # of the palette, so that the file stays small


def main() -> None:
    run, *problem = sys.argv[1:]
    page = (Path(run) / "view.html").resolve()
    if not page.exists():
        sys.exit(f"there is no {page}; write it with: trimtab view {run}")
    options = Options()
    options.binary_location = shutil.which("chromium") or ""
    for argument in ("--headless=new", "--disable-gpu", "--hide-scrollbars", "--no-sandbox"):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        metrics = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": SCALE, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        fragment = f"#problem={problem[0]}&filter=fixed" if problem else "#filter=fixed"
        browser.get(page.as_uri() + fragment)
        time.sleep(1.5)  # chunks are opened after the page has loaded
        shot = Image.open(BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    finally:
        browser.quit()
    shot.quantize(COLOURS, dither=Image.Dither.NONE).save(IMAGE, optimize=True)
    print(f"{IMAGE}: {IMAGE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
