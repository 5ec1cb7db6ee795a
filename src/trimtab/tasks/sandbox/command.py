"""How a Python process is started that sees nothing of its starter: no environment, no site-packages, no inherited descriptor."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from trimtab.tasks.sandbox.plan import Plan

_SYSTEM_FOLDERS = "/usr/bin:/bin:/usr/local/bin:/run/wrappers/bin:/run/current-system/sw/bin"
_ROOT = Path(__file__).parents[3]
_BARE_PACKAGES = ("trimtab", "trimtab.tasks", "trimtab.tasks.sandbox", "trimtab.tasks.grading")
# the packages are entered as bare modules, so that nothing of their __init__ (pydantic, transformers) is imported
_BOOT = f"""
import sys
root, module = sys.argv[1:]
for name in {_BARE_PACKAGES!r}:
    package = sys.modules[name] = type(sys)(name)
    package.__path__ = [root + "/" + name.replace(".", "/")]
__import__(module, fromlist=["main"]).main()
"""


def python_command(module: str) -> list[str]:
    """Start ``module.main()`` in an interpreter with the standard library and this package's own files alone.

    Not ``-I`` or ``-E``, which would ignore the fixed hash seed: the environment is ours (:func:`clean_environment`).
    """
    return [os.path.realpath(sys.executable), "-P", "-s", "-S", "-c", _BOOT, str(_ROOT), module]


def clean_environment(home: str) -> dict[str, str]:
    """The whole environment: a home, one thread for numerical libraries, and a fixed hash seed, so that verdicts repeat."""
    return {
        "HOME": home,
        "TMPDIR": home,
        "TZ": "UTC",
        "PYTHONHASHSEED": "0",
        "PYTHONUTF8": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }


def find_bwrap() -> str | None:
    """Bubblewrap, from the system's folders alone: a virtual environment may hold another program of that name."""
    return shutil.which("bwrap", path=_SYSTEM_FOLDERS)


def bwrap_command(plan: Plan, home: str, command: Sequence[str]) -> list[str]:
    """``command`` under bubblewrap: every namespace, no capability, and a root that holds what the plan makes readable."""
    arguments = [find_bwrap() or "bwrap", "--unshare-all", "--die-with-parent", "--cap-drop", "ALL", "--dev", "/dev"]
    for source, target in plan["readable"]:
        arguments += ["--ro-bind", source, target]
    for folder in plan["hidden"]:
        arguments += ["--tmpfs", folder]
    for path in (command[0], str(_ROOT / "trimtab/tasks")):
        arguments += ["--ro-bind", path, path]
    for folder in plan["hidden"]:
        arguments += ["--remount-ro", folder]
    for folder in (home, "/tmp", "/dev/shm"):
        arguments += ["--size", str(plan["disk"]), "--perms", "1777", "--tmpfs", folder]
    for folder in ("/dev", "/"):  # memory file systems without a size
        arguments += ["--remount-ro", folder]
    return [*arguments, "--chdir", home, *command]
