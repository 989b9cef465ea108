#!/bin/bash
# A second disk for the NFS story: a copy of the machine's, with Debian's NFS server and client and this package installed into it at the host's full speed.
# In mount and network namespaces of its own; the first disk is only read. Arguments: the disk to make, the folder of Debian's packages, the package.
set -euo pipefail
if [ "${1:-}" != inside ]; then
  exec unshare --net --mount --propagation private -- bash "$0" inside "$(readlink -f "$1")" "$(readlink -f "$2")" "$(readlink -f "$3")"
fi
shift
disk=${STEVEDORE_VM_DIR:-/var/cache/stevedore-vm}/debian-12.raw
tree=$(mktemp -d)
# The mount ends with the namespace; the folder that held it is all that is left to remove.
trap 'umount -R "$tree" 2>/dev/null || true; rmdir "$tree"' EXIT
cp --sparse=always "$disk" "$1"
mount -o loop "$1" "$tree"
mount -t proc proc "$tree/proc"
mkdir "$tree/root/debs"
cp "$2"/*.deb "$3" "$tree/root/debs/"
chroot "$tree" /bin/bash -euo pipefail <<'INSIDE'
export DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin
# Nothing is started here.
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
# nfs-common wants Python for its statistics alone.
dpkg --force-depends -i /root/debs/*.deb </dev/null >/root/debs/log 2>&1 || { cat /root/debs/log >&2; exit 1; }
rm -r /usr/sbin/policy-rc.d /root/debs
mkdir -p /srv/nfs/claim /srv/nfs/read-only /srv/nfs/sub/inner /srv/secret
echo 'the server wrote this' >/srv/nfs/read-only/file
echo 'not exported' >/srv/secret/file
echo '/srv/nfs *(rw,sync,no_subtree_check,no_root_squash)' >/etc/exports
# A server that comes back lets its former clients in first, for ninety seconds unless told otherwise.
mkdir -p /etc/nfs.conf.d
printf '[nfsd]\ngrace-time=10\nlease-time=10\n' >/etc/nfs.conf.d/story.conf
INSIDE
umount "$tree/proc" "$tree"
