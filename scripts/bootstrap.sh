#!/usr/bin/env bash
# Make a virtual environment with a supported Python, and uv beside it: scripts/bootstrap.sh FOLDER
set -euo pipefail

venv="$1"
supported='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))'

fail() {
    printf 'error: %s\n  -> %s\n' "$1" "$2" >&2
    exit 2
}

# A virtual environment with pip, also on Debian and Ubuntu where the venv module comes apart from python3.
make_venv() {
    "$1" -m venv "$2" >/dev/null 2>&1 && return
    rm -rf "$2"
    "$1" -m venv --without-pip "$2" >/dev/null 2>&1 && "$1" -m pip --version >/dev/null 2>&1 &&
        "$1" -m pip --python "$2/bin/python" install --quiet pip && return
    rm -rf "$2"
    fail "$1 cannot make virtual environments" "install its venv module (Debian, Ubuntu: apt-get install python3-venv)"
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.11 python3.12}; do
        if command -v "$candidate" >/dev/null && "$candidate" -c "$supported"; then
            command -v "$candidate"
            return
        fi
    done
}

install_uv() {
    [ -x "$1/bin/uv" ] || "$1/bin/python" -m pip install --quiet --disable-pip-version-check uv ||
        fail "uv could not be installed from the package index" "check the network, or pip's own configuration"
}

if [ ! -x "$venv/bin/python" ]; then
    python="$(find_python)"
    if [ -n "$python" ]; then
        make_venv "$python" "$venv"
    else # another Python can still fetch a supported one
        command -v python3 >/dev/null || fail "there is no python3" "install Python 3.11 or 3.12"
        make_venv python3 "$venv-uv"
        install_uv "$venv-uv"
        "$venv-uv/bin/uv" venv --quiet --seed --python 3.11 "$venv" || fail \
            "this needs Python 3.11 or 3.12, here is $(python3 --version), and none could be fetched" \
            "install Python 3.11 or 3.12 and say: make install PYTHON=/path/to/python3.11"
    fi
fi

"$venv/bin/python" -c "$supported" || fail \
    "$venv was made with $("$venv/bin/python" --version)" "remove it, and run the same command again"
"$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$venv/bin/python" -m ensurepip >/dev/null
install_uv "$venv"
