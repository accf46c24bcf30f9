#!/usr/bin/env bash
# Whether two checkouts compute the same: after a refactoring, every number must be as before.
#
#   tests/identity.sh OLD_CHECKOUT NEW_CHECKOUT [--only CASE ...] [--keep FOLDER]
#                     [--old key.path=value ...] [--new key.path=value ...]
#   tests/identity.sh --list
#
# Every case (tests/identity.py) runs small searches and trainings with each checkout's own code over
# the same inputs, and compares what they leave in their run folders bit for bit. One line a case;
# exit code 0 if all are identical, 1 if not, 2 for wrong arguments. It takes some minutes on 2 cores.
#
# Where a default has changed on purpose, --new or --old gives one side's runs the other's value:
# `--new search.answer=trajectory` compares with a checkout from before there was `search.answer`.
#
# Both run under one Python, so that libraries are the same: PYTHON, or NEW_CHECKOUT's .venv.
set -euo pipefail

home=$(cd "$(dirname "$0")/.." && pwd)
if [ "${1:-}" = --list ]; then
    export PYTHONPATH=$home
    cd "$home" && exec "${PYTHON:-$home/.venv/bin/python}" -m tests.identity --list
fi
if [ $# -lt 2 ]; then
    sed -n '4,6s/^# *//p' "$0" >&2
    exit 2
fi
for checkout in "$1" "$2"; do
    if [ ! -f "$checkout/fastmix_mega/__init__.py" ] || [ ! -f "$checkout/tests/ranks.py" ]; then
        echo "$checkout is no checkout of this project (no fastmix_mega/ or no tests/ranks.py)" >&2
        exit 2
    fi
done
old=$(cd "$1" && pwd)
new=$(cd "$2" && pwd)
shift 2
python=${PYTHON:-$new/.venv/bin/python}
if [ ! -x "$(command -v "$python")" ]; then
    echo "no Python at $python: set PYTHON, or run \`make .venv/.ready\` in $new" >&2
    exit 2
fi

cd "$home"
PYTHONPATH=$home exec "$python" -m tests.identity "$old" "$new" "$@"
