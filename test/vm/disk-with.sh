#!/bin/bash
# A second disk for a story of its own: a copy of the machine's, with more packages installed into it at the host's full speed. In mount and network
# namespaces of its own; the first disk is only read. Arguments: the disk to make, a script to run in it then (or /dev/null), the packages.
set -euo pipefail
if [ "${1:-}" != inside ]; then
  exec unshare --net --mount --propagation private -- bash "$0" inside "$(readlink -f "$1")" "$(readlink -f "$2")" "${@:3}"
fi
disk=$2 then=$3
shift 3
tree=$(mktemp -d)
# The mount ends with the namespace; the folder that held it is all that is left to remove.
trap 'umount -R "$tree" 2>/dev/null || true; rmdir "$tree"' EXIT
cp --sparse=always "${STEVEDORE_VM_DIR:-/var/cache/stevedore-vm}/debian-12.raw" "$disk"
mount -o loop "$disk" "$tree"
mount -t proc proc "$tree/proc"
mkdir "$tree/root/debs"
cp "$@" "$tree/root/debs/"
cat "$then" >"$tree/root/debs/then.sh"
chroot "$tree" /bin/bash -euo pipefail <<'INSIDE'
export DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin
# Nothing is started here.
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
# What a package wants for its extras alone (nfs-common: Python) is not there.
dpkg --force-depends -i /root/debs/*.deb </dev/null >/root/debs/log 2>&1 || { cat /root/debs/log >&2; exit 1; }
bash -euo pipefail /root/debs/then.sh
rm -r /usr/sbin/policy-rc.d /root/debs
INSIDE
umount "$tree/proc" "$tree"
