"""Write docs/errors.md from the registry of codes; ``--check`` fails when the file is out of date."""

import argparse
import sys
from itertools import groupby
from pathlib import Path

from trimtab.error_codes import CODES

PAGE = Path(__file__).parent / "errors.md"
HEADER = """# Errors

Written by `make docs` from `trimtab.error_codes`. The command line prints `error[CODE]: MESSAGE` and exits with 1; in Python
`error.code` is the same code, and its first part tells the class. The message says what was given; this page has the cause and
the fix. A code is never renamed, so it can be searched for and tested. A rare error has the first part alone, such as
`error[input]`, and is explained by its message. [Troubleshooting](troubleshooting.md) begins with the symptom.
"""
CLASSES = {
    "input": "`InputError`: a file, a field or a value that cannot be used.",
    "settings": "`ConfigError`: a settings file, keyword argument or option.",
    "files": "`StoreError`: a file of a run or an artifact that is missing, damaged or cannot be written.",
    "model": "`ModelError`: a model that cannot be opened, recorded or steered.",
    "engine": "`EngineError`, a `ModelError`: an engine that cannot start.",
    "mismatch": "`MismatchError`: things that do not belong together.",
    "data": "`NotEnoughDataError`: too little data for the question.",
    "cluster": "`ExecutionError`: a Ray cluster, or its workers.",
    "sandbox": "`SandboxError`: programs run only where a sandbox proves itself.",
    "grader": "`TrustedTesterError`: the process that runs a benchmark's tests.",
}


def page() -> str:
    """The whole page: a table for each kind, in the order of the registry."""
    sections = [HEADER]
    for kind, codes in groupby(CODES, key=lambda code: code.partition("/")[0]):
        rows = [f"| `{code}` | {CODES[code].cause} | {CODES[code].fix} |" for code in codes]
        sections.append("\n".join([f"## {kind}\n\n{CLASSES[kind]}\n", "| code | cause | fix |", "|---|---|---|", *rows, ""]))
    return "\n".join(sections)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    if not parser.parse_args().check:
        PAGE.write_text(page())
    elif not PAGE.is_file() or PAGE.read_text() != page():
        sys.exit(f"{PAGE.name} does not match the registry of errors; run `make docs` and commit the file")


if __name__ == "__main__":
    main()
