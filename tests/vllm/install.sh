#!/usr/bin/env bash
# Installs the CPU engine of the live tests, and this package, into an environment of its own.
#   tests/vllm/install.sh [FOLDER]      FOLDER is .venv-vllm unless given; PYTHON names the interpreter
# Every package is listed, so pip resolves nothing and downloads eight lots of them at once. GPU users install vllm instead.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
folder=${1:-.venv-vllm}
unset PIP_CONSTRAINT
"${PYTHON:-python3}" -m venv "$folder"
pip=$folder/bin/pip
grep -v '^#' tests/vllm/requirements.txt |
    xargs -d '\n' -n 22 -P 8 "$pip" download --quiet --no-deps --dest "$folder/wheels"
"$pip" install --quiet --no-deps --no-compile --no-index --find-links "$folder/wheels" --requirement tests/vllm/requirements.txt
rm -r "$folder/wheels"
# a server is four processes that import 5,000 files each: a minute without this, where Python may not write what it has compiled.
# A few files of other Python versions cannot be compiled, which pip passes over, too
"$folder/bin/python" -m compileall -q -j 0 "$folder"/lib/python*/site-packages >/dev/null || true
"$pip" install --quiet --no-deps --editable .
