"""Figures as SVG files, drawn by a Chrome or Chromium on this machine if there is one."""

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab.store import AnyPath, replace_file

if TYPE_CHECKING:
    from trimtab.report.theme import Drawing

logger = logging.getLogger(__name__)

WIDTH = 900


def write_pictures(drawings: "Sequence[Drawing]", folder: AnyPath) -> bool:
    """Write ``NAME.svg`` per figure into a folder that exists; False, and a note in the log, where no browser was found.

    The page draws the same figures without this, and a button there saves each of them. Identifiers within an SVG are random, so
    two pictures of one figure differ in bytes.
    """
    try:
        import kaleido
        from choreographer.browsers.chromium import ChromeNotFoundError
    except ModuleNotFoundError as cause:
        if (cause.name or "").partition(".")[0] not in ("kaleido", "choreographer"):
            raise
        logger.info("no SVG files: kaleido is not installed; run: pip install 'trimtab[report]'")
        return False
    if not drawings:
        return True
    with tempfile.TemporaryDirectory() as scratch:
        jobs = [_job(drawing, Path(scratch)) for drawing in drawings]
        try:
            # without mathjax=False the page that draws would load it from the network
            kaleido.write_fig_from_object_sync(jobs, kopts={"mathjax": False})
        except ChromeNotFoundError:
            logger.info("no SVG files: no Chrome or Chromium was found; save them with the button on the page")
            return False
        for job in jobs:
            path = Path(str(job["path"]))
            with replace_file(folder / path.name) as temporary:
                temporary.write_bytes(path.read_bytes())
    return True


def _job(drawing: "Drawing", scratch: Path) -> dict[str, object]:
    height = drawing.figure.layout.height
    return {
        "fig": drawing.figure,
        "path": str(scratch / f"{drawing.name}.svg"),
        "opts": {"format": "svg", "width": WIDTH // 2 if drawing.narrow else WIDTH, "height": height},
    }
