#!/bin/bash
# The package's own scripts, at the host's full speed: installed, upgraded, removed, installed again and purged in a throw-away overlay of the machine's
# disk, in mount and network namespaces of its own. Without systemd; that half is the story's. Arguments: the older and the newer package.
set -euo pipefail
if [ "${1:-}" != inside ]; then
  first=$(readlink -f "$1") next=$(readlink -f "$2")
  exec unshare --net --mount --propagation private -- bash "$0" inside "$first" "$next"
fi
shift
disk=${STEVEDORE_VM_DIR:-/var/cache/stevedore-vm}/debian-12.raw
work=$(mktemp -d)
# The mounts end with the namespace; the folder that held them is all that is left to remove.
trap 'for each in tree upper disk; do umount -R -l "$work/$each" 2>/dev/null || true; done; rm -rf --one-file-system "$work"' EXIT
mkdir -p "$work"/{disk,upper,work,tree}
mount -o loop,ro,noload "$disk" "$work/disk"
mount -t tmpfs tmpfs "$work/upper"
mkdir "$work/upper/"{files,work}
mount -t overlay overlay -o "lowerdir=$work/disk,upperdir=$work/upper/files,workdir=$work/upper/work" "$work/tree"
mount -t proc proc "$work/tree/proc"
cp "$1" "$work/tree/root/first.deb"
cp "$2" "$work/tree/root/next.deb"

chroot "$work/tree" /bin/bash -euo pipefail <<'INSIDE'
export DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin
fail() { printf 'package: %s\n' "$*" >&2; exit 1; }
# Standard input is closed: whoever asks fails.
quiet() { "$@" </dev/null >/root/log 2>&1 || { cat /root/log >&2; fail "$*"; }; }

quiet dpkg -i /root/first.deb
grep -q KubeletConfiguration /etc/stevedore/config.yaml || fail "no default configuration"
[ "$(stevedore --version)" != "" ] || fail "the program does not run"
quiet dpkg -V stevedore

# A joined host, whose operator changed what may be changed.
mkdir -p /etc/kubernetes/pki /var/lib/kubelet/pods /var/log/pods/x /var/log/containers /srv/precious
echo '{"apiVersion":"v1","kind":"Config","clusters":[{"name":"a","cluster":{"server":"https://127.0.0.1:1"}}],"contexts":[{"name":"a","context":{"cluster":"a","user":"a"}}],"current-context":"a","users":[{"name":"a","user":{"token":"x"}}]}' >/etc/kubernetes/kubelet.conf
echo ca >/etc/kubernetes/pki/ca.crt
printf 'apiVersion: stevedore/v1alpha1\nkind: StevedoreConfiguration\nkubeconfig: "/etc/kubernetes/kubelet.conf"\n' >/etc/stevedore/config.yaml
echo 'STEVEDORE_ARGS="--v debug"' >/etc/default/stevedore
before=$(cat /etc/stevedore/config.yaml /etc/default/stevedore)

quiet dpkg -i /root/next.deb
[ "$(cat /etc/stevedore/config.yaml /etc/default/stevedore)" = "$before" ] || fail "the upgrade changed the configuration"

quiet dpkg -r stevedore
[ -e /etc/kubernetes/kubelet.conf ] && [ -d /var/lib/kubelet/pods ] || fail "a removal took the identity or the pods"
[ -x /var/lib/stevedore/leave/stevedore ] || fail "a removal left nothing to purge with"
quiet dpkg -i /root/next.deb
[ ! -e /var/lib/stevedore ] || fail "what was kept for a purge is still there after an installation"
[ "$(cat /etc/stevedore/config.yaml /etc/default/stevedore)" = "$before" ] || fail "a new installation changed the configuration"

iptables -t nat -N KUBE-SERVICES
iptables -t nat -A OUTPUT -m comment --comment 'kubernetes service portals' -j KUBE-SERVICES
iptables -t nat -N SOMEBODY-ELSE
mkdir -p /var/lib/kubelet/foreign
echo data >/srv/precious/file
mount --bind /srv/precious /var/lib/kubelet/foreign
quiet dpkg --purge stevedore
for path in /etc/stevedore /etc/default/stevedore /usr/lib/stevedore /usr/bin/stevedore /var/lib/stevedore /run/stevedore /var/lib/kubelet /var/log/pods /var/log/containers /etc/kubernetes; do
  [ ! -e "$path" ] || fail "a purge left $path"
done
[ "$(cat /srv/precious/file)" = data ] || fail "a purge removed what was mounted"
! iptables-save -t nat | grep -q KUBE || fail "a purge left rules"
iptables-save -t nat | grep -q SOMEBODY-ELSE || fail "a purge took somebody else's rules"

# Never joined: nothing of the host's is the package's.
mkdir -p /var/lib/kubelet/pods /var/log/pods
quiet dpkg -i /root/next.deb
quiet dpkg --purge stevedore
[ -d /var/lib/kubelet/pods ] && [ -d /var/log/pods ] || fail "a purge took the files of a kubelet that is not ours"
INSIDE
echo "package: installed, upgraded, removed, installed again and purged as it should be"
