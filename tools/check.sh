#!/bin/sh
# Run the project's checks, all of them even if one fails, and end with one line for each.
# Usage: check.sh BIN [lint] [tests [pytest arguments...]]
set -u

bin=$1
shift
summary=''
failed=0

check() {
    name=$1
    shift
    printf '\n--- %s\n' "$name"
    if "$@"; then
        summary="$summary
  ok      $name"
    else
        summary="$summary
  FAILED  $name"
        failed=1
    fi
}

no_outputs() {
    # Notebooks are stored without outputs; `make format` strips them.
    find notebooks -name '*.ipynb' ! -path '*/.ipynb_checkpoints/*' -exec "$bin/nbstripout" --keep-id --verify {} +
}

if [ "${1:-}" = lint ]; then
    shift
    check 'lint (ruff check)' "$bin/ruff" check --quiet .
    check 'format (ruff format)' "$bin/ruff" format --check --quiet .
    check 'types (mypy)' "$bin/mypy"
    check 'import directions (lint-imports)' "$bin/lint-imports" --no-logo
    check 'notebooks without outputs (nbstripout)' no_outputs
fi
if [ "${1:-}" = tests ]; then
    shift
    check 'tests (pytest)' "$bin/python" -m pytest "$@"
fi

printf '\n--- summary%s\n' "$summary"
exit $failed
