#!/usr/bin/env bash
# Install what requirements.lock pins, and this project: scripts/sync.sh FOLDER [REQUIREMENTS]
# REQUIREMENTS: a file to install instead of all of the lock, at the versions that the lock pins.
set -euo pipefail

venv="$1"
wanted="${2:-requirements.lock}"
uv="$(dirname "$0")/../.venv/bin/uv"

# uv does not read pip's configuration: hand on the index that pip has been told to use.
index="$("$(dirname "$uv")/python" -m pip config get global.index-url 2>/dev/null || true)"
index="${PIP_INDEX_URL:-$index}"
if [ -n "$index" ] && [ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ]; then
    export UV_DEFAULT_INDEX="$index"
fi
export UV_HTTP_TIMEOUT="${UV_HTTP_TIMEOUT:-300}"

"$uv" pip install --quiet --compile-bytecode --python "$venv/bin/python" \
    --requirement "$wanted" --constraint requirements.lock
"$uv" pip install --quiet --python "$venv/bin/python" --no-deps --editable .

# Above, uv has compiled all that the environment holds; an editable project stays where it is.
"$venv/bin/python" -m compileall -q nfbmr tune cluster mlflow_server
