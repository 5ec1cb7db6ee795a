"""Draws docs/images/result.svg, the picture of the README, from the report of a demo; needs a Chrome or Chromium.

python docs/make_image.py runs/demo/report.json
"""

import sys
from pathlib import Path

from trimtab.report import read_report
from trimtab.report.frames import evaluation_figure
from trimtab.report.plots import svg

IMAGE = Path(__file__).parent / "images" / "result.svg"


def main(path: Path) -> None:
    """Accuracy and paired gain of every condition, as the report draws them."""
    report = read_report(path)
    figure = evaluation_figure(report.conditions, report.random_gains, report.verdict.split, report.verdict.condition)
    IMAGE.write_bytes(svg(figure, IMAGE.stem))
    print(IMAGE)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
