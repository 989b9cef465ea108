#!/bin/bash
# `npm run test:vm`: the story of a node on a virtual machine. As root, on Debian; makes the disk at the first run (needs apt's servers, minutes), then
# everything happens in a network namespace of its own. Arguments go to story.ts: --keep, --only STEP…, --write. With --nfs first it is the story of nfs.ts.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/../.."
[ "$(id -u)" = 0 ] || { echo "test:vm needs root: it makes a disk and a network namespace" >&2; exit 1; }
node=node_modules/node/bin/node
packages=dist/vm-packages
"$node" test/vm/image.ts
rm -rf "$packages"
version=$("$node" -p 'require("./package.json").version')
nice -n 10 "$node" scripts/package.ts --fast --no-tarball --out "$packages" --version "$version"
if [ "${1:-}" = --nfs ]; then
  shift
  cache=${STEVEDORE_VM_DIR:-/var/cache/stevedore-vm}
  if [ ! -d "$cache/nfs-debs" ]; then
    mkdir -p "$cache/nfs-debs.making"
    (cd "$cache/nfs-debs.making" && apt-get download -q keyutils libevent-core-2.1-7 libnfsidmap1 libsqlite3-0 rpcbind nfs-common nfs-kernel-server)
    mv "$cache/nfs-debs.making" "$cache/nfs-debs"
  fi
  work=$(mktemp -d "$cache/nfs-XXXXXX")
  trap 'rm -rf "$work"' EXIT
  nice -n 10 bash test/vm/nfs-disk.sh "$work/disk.raw" "$cache/nfs-debs" "$packages"/stevedore_"$version"_*.deb
  unshare --net "$node" test/vm/nfs.ts --disk "$work/disk.raw" "$@"
  exit
fi
nice -n 10 "$node" scripts/package.ts --fast --no-tarball --no-build --out "$packages" --version "$version+next"
bash test/vm/package.sh "$packages"/stevedore_"$version"_*.deb "$packages"/stevedore_"$version"+next_*.deb
exec unshare --net "$node" test/vm/story.ts --packages "$packages" "$@"
