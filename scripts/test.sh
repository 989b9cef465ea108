#!/bin/bash
# All tests in one command: installs what is missing, checks format, lint, types and units, builds, and runs the integration tests. As root.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
bash "$here/setup.sh" --tests
cd "$here/.."
npm run --silent check
npm run --silent build
npm run --silent integration -- "$@"
