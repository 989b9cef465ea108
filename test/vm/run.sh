#!/bin/bash
# `npm run test:vm`: the story of a node on a virtual machine. As root, on Debian; makes the disk at the first run (needs apt's servers, minutes), then
# everything happens in a network namespace of its own. Arguments go to story.ts: --keep, --only STEP…, --write.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/../.."
[ "$(id -u)" = 0 ] || { echo "test:vm needs root: it makes a disk and a network namespace" >&2; exit 1; }
node=node_modules/node/bin/node
packages=dist/vm-packages
"$node" test/vm/image.ts
rm -rf "$packages"
version=$("$node" -p 'require("./package.json").version')
nice -n 10 "$node" scripts/package.ts --fast --no-tarball --out "$packages" --version "$version"
nice -n 10 "$node" scripts/package.ts --fast --no-tarball --no-build --out "$packages" --version "$version+next"
bash test/vm/package.sh "$packages"/stevedore_"$version"_*.deb "$packages"/stevedore_"$version"+next_*.deb
exec unshare --net "$node" test/vm/story.ts --packages "$packages" "$@"
