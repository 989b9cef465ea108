#!/bin/bash
# The main job in one command: installs what is missing, builds, and starts a cluster with a demo on this machine. --exit ends it afterwards.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
bash "$here/setup.sh"
(cd "$here/.." && npm run --silent build)
exec "$here/../dist/stevedore" dev "$@"
