#!/bin/sh
# Make the virtual environment $1 and install rsovlib into it, as constraints.txt pins it.
# $2 may name the Python to use; otherwise the first one found that is new enough.
set -eu

venv=$1
python=${2:-}
wanted='import sys; sys.exit(sys.version_info < (3, 11))'

if [ -n "$python" ]; then
    if ! "$python" -c "$wanted" 2>/dev/null; then
        echo "PYTHON=$python can't be used: rsovlib needs Python 3.11 or later." >&2
        exit 1
    fi
else
    for candidate in python3 python3.13 python3.12 python3.11 python; do
        if "$candidate" -c "$wanted" 2>/dev/null; then
            python=$candidate
            break
        fi
    done
    if [ -z "$python" ]; then
        found=$(python3 --version 2>/dev/null || echo 'no python3')
        echo "rsovlib needs Python 3.11 or later; found $found." >&2
        echo "Install one, or name it: make setup PYTHON=/path/to/python3.12" >&2
        exit 1
    fi
fi

if [ -e "$venv" ] && [ ! -e "$venv/pyvenv.cfg" ]; then
    echo "$venv is there and is no virtual environment; move it away, or choose another place: make setup VENV=..." >&2
    exit 1
fi
echo "Setting up $venv with $("$python" --version): about 7 GB with PyTorch and some minutes, once."
# A half-made or moved environment is no base to build on; one that this checkout finished is only brought up to date.
if [ "$(cat "$venv/installed-here" 2>/dev/null)" != "$(pwd -P)" ]; then
    rm -rf "$venv"
    if ! "$python" -m venv "$venv"; then
        rm -rf "$venv"
        echo "$python can't make virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2
        exit 1
    fi
fi
if ! "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        --constraint constraints.txt --editable '.[dev]'; then
    echo "The installation failed; the reason is above. The next make starts it again." >&2
    exit 1
fi
"$venv/bin/python" -m pip check --quiet --disable-pip-version-check
