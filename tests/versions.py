"""Runs a few tests with the oldest and with the newest allowed version of each package whose releases break others.

    python tests/versions.py [PACKAGE ...] [--use torch==2.6.0=FOLDER]

Bounds are read from pyproject.toml. A version is installed into a folder of its own, without its dependencies, and laid over the
environment that runs this script; a direct dependency that this environment does not satisfy is laid over it, too. So one package
differs from what constraints.txt pins, and whatever fails is its doing. Every folder is deleted at the end. torch has to be a
build for CPUs: set PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu where the index has none, or lay it there with
``--use``. The last lines are the table of docs/versions.md. Exit code 1 when a version that could be installed fails.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
_FORWARDS = ["tests/unit/model/test_attach.py", "tests/unit/model/test_adapters.py", "tests/unit/recording/test_forward.py"]
TESTS: Mapping[str, list[str]] = {
    "torch": [*_FORWARDS, "tests/unit/gating", "tests/unit/analysis/test_dose.py", "tests/unit/sampling/test_generate.py"],
    "transformers": [*_FORWARDS, "tests/unit/model/test_attach_generate.py", "tests/unit/sampling/test_generate_families.py"],
    "peft": ["tests/unit/export/test_targets.py", "tests/unit/evaluation/test_finetune.py"],
    "ray": ["tests/unit/execution/test_executors.py", "tests/cluster/test_quick.py"],
}
"""The tests of each package, some two minutes; those of all are the suite's."""
SECONDS = 900


@dataclass(frozen=True)
class Result:
    """One version: ``passed`` is None where it could not be installed or imported."""

    package: str
    bound: str
    version: str
    passed: bool | None
    said: str

    def row(self) -> str:
        """A row of the table."""
        outcome = {True: "passes", False: "**fails**", None: "not run"}[self.passed]
        return f"| {self.package} | {self.bound} | {self.version} | {outcome} | {self.said} |"


def declared() -> dict[str, SpecifierSet]:
    """The specifiers of pyproject.toml by package; of several, the first."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found: dict[str, SpecifierSet] = {}
    for line in [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]:
        requirement = Requirement(line)
        found.setdefault(requirement.name, requirement.specifier)
    return found


def floor(specifier: SpecifierSet) -> str:
    """The version after ``>=``."""
    return next(each.version for each in specifier if each.operator == ">=")


def install(wanted: str, folder: Path) -> str:
    """Lay a version into a folder, and what it needs and this environment lacks; returns why not, empty if it is there."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-compile",
        "--target",
        str(folder),
        "--upgrade",
    ]
    environment = os.environ | {"PIP_CONSTRAINT": os.devnull}
    done = subprocess.run([*command, wanted], capture_output=True, text=True, env=environment)
    if done.returncode:
        return f"cannot be installed: {done.stderr.strip().splitlines()[-1][:120]}"
    for needed in unsatisfied(folder):
        subprocess.run([*command, str(needed)], capture_output=True, env=environment, check=True)
    return ""


def unsatisfied(folder: Path) -> Iterator[Requirement]:
    """Direct dependencies of what lies in a folder that this environment does not satisfy; packages of CUDA left out."""
    for file in folder.glob("*.dist-info/METADATA"):
        for line in re.findall(r"^Requires-Dist: (.*)$", file.read_text(), re.MULTILINE):
            requirement = Requirement(line)
            if requirement.name.startswith(("nvidia-", "cuda-", "triton")) or (
                requirement.marker and not requirement.marker.evaluate({"extra": ""})
            ):
                continue
            try:
                have = version(requirement.name)
            except PackageNotFoundError:
                have = ""
            if not have or not requirement.specifier.contains(have, prereleases=True):
                yield requirement


def run(package: str, folder: Path) -> tuple[str, bool | None, str]:
    """Run the tests of a package with what lies in a folder: its version, whether they pass, and pytest's last line."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT / "src")])}
    code = f"import {package}; from importlib.metadata import version; print(version({package!r}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    if found.returncode:
        return "", None, f"cannot be imported: {found.stderr.strip().splitlines()[-1][:120]}"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "default", *TESTS[package]]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return found.stdout.strip(), False, f"not done after {SECONDS} s"
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    for line in lines[-12:]:
        print("   ", line, flush=True)
    return found.stdout.strip(), done.returncode == 0, re.sub(r" in .*|=", "", lines[-1]).strip() if lines else done.stderr[-200:]


def check(package: str, bound: str, wanted: str, given: Mapping[str, str]) -> Result:
    """One version in a folder of its own."""
    print(f"{package}, {bound}: {wanted}", flush=True)
    with tempfile.TemporaryDirectory(prefix="trimtab-versions-") as scratch:
        folder = Path(given.get(wanted, scratch))
        problem = "" if wanted in given else install(wanted, folder)
        if problem:
            return Result(package, bound, wanted.partition("==")[2] or "?", None, problem)
        found, passed, said = run(package, folder)
        return Result(package, bound, found or wanted.partition("==")[2], passed, said)


def main() -> None:
    """Check the bounds of the packages that are named, or of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help=f"Of {', '.join(TESTS)}; all unless given.")
    parser.add_argument(
        "--use", action="append", default=[], metavar="NAME==VERSION=FOLDER", help="A version that lies in a folder."
    )
    parser.add_argument("--bound", choices=["oldest", "newest"], help="Both unless given.")
    arguments = parser.parse_args()
    given = dict(each.rsplit("=", 1) for each in arguments.use)
    specifiers, results = declared(), []
    for package in arguments.packages or list(TESTS):
        specifier = specifiers[package]
        bounds = {"oldest": f"{package}=={floor(specifier)}", "newest": f"{package}{specifier}"}
        for bound, wanted in bounds.items():
            if arguments.bound in (None, bound):
                results.append(check(package, bound, wanted, given))
    print("\n| package | bound | version | | |\n|---|---|---|---|---|")
    print("\n".join(result.row() for result in results))
    sys.exit(any(result.passed is False for result in results))


if __name__ == "__main__":
    main()
