#!/bin/bash
# `npm run test:vm`: the story of a node on a virtual machine. As root, on Debian; makes the disk at the first run (needs apt's servers, minutes), then
# everything happens in a network namespace of its own. Arguments go to story.ts: --keep, --write, --machine-only (what a container cannot show); --container takes namespaces of this host instead of
# qemu, for minutes instead of hours. With --nfs first it is the story of nfs.ts, with --docker that of docker.ts (which knows --container too).
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/../.."
[ "$(id -u)" = 0 ] || { echo "test:vm needs root: it makes a disk and a network namespace" >&2; exit 1; }
node=node_modules/node/bin/node
packages=dist/vm-packages
cache=${STEVEDORE_VM_DIR:-/var/cache/stevedore-vm}
"$node" test/vm/image.ts
rm -rf "$packages"
version=$("$node" -p 'require("./package.json").version')
nice -n 10 "$node" scripts/package.ts --fast --no-tarball --out "$packages" --version "$version"

# A story on a disk with more of Debian's packages: the story, the script that prepares the disk, the packages; then the story's arguments.
on_disk_with() {
  local story=$1 prepare=$2 debs=$cache/$1-debs names=$3
  shift 3
  if [ ! -d "$debs" ]; then
    mkdir -p "$debs.making"
    # shellcheck disable=SC2086
    (cd "$debs.making" && apt-get download -q $names)
    mv "$debs.making" "$debs"
  fi
  work=$(mktemp -d "$cache/$story-XXXXXX")
  trap 'rm -rf "$work"' EXIT
  nice -n 10 bash test/vm/disk-with.sh "$work/disk.raw" "$prepare" "$debs"/*.deb "$packages"/stevedore_"$version"_*.deb
  unshare --net "$node" "test/vm/$story.ts" --disk "$work/disk.raw" "$@"
  exit
}
case ${1:-} in
--nfs)
  on_disk_with nfs test/vm/nfs-disk.sh 'keyutils libevent-core-2.1-7 libnfsidmap1 libsqlite3-0 rpcbind nfs-common nfs-kernel-server' "${@:2}"
  ;;
--docker)
  on_disk_with docker /dev/null 'docker.io tini' "${@:2}"
  ;;
esac

nice -n 10 "$node" scripts/package.ts --fast --no-tarball --no-build --out "$packages" --version "$version+next"
bash test/vm/package.sh "$packages"/stevedore_"$version"_*.deb "$packages"/stevedore_"$version"+next_*.deb
exec unshare --net "$node" test/vm/story.ts --packages "$packages" "$@"
