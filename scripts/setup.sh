#!/bin/bash
# Installs what Stevedore and its tests need on Debian 12 and leaves alone what is there. As root; may be run again at any time.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || die "needs root, to install packages: run it with sudo"
command -v apt-get >/dev/null || die "installs with apt, which this host has not: install containerd, runc, CNI plugins, iptables, nftables, conntrack, iproute2 and a static busybox yourself"

# program → package
need=()
want() { command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ] || need+=("$2"); }
want containerd containerd
want runc runc
want iptables iptables
want nft nftables
want conntrack conntrack
want ip iproute2
want modprobe kmod
want openssl openssl
[ -x /usr/lib/cni/bridge ] || [ -x /opt/cni/bin/bridge ] || need+=(containernetworking-plugins)

# The Docker adapter's tests start an engine of their own; nothing else needs one, so only `--tests` installs it.
if [ "${1:-}" = --tests ]; then want dockerd docker.io; fi

# The demo's image is made of the host's busybox, so it must not need libraries.
if [ ! -x /bin/busybox ] || ldd /bin/busybox >/dev/null 2>&1; then need+=(busybox-static); fi

# containerd.io of docker.com brings its own runc; Debian's packages would push it out.
if command -v containerd >/dev/null && command -v runc >/dev/null; then
  for i in "${!need[@]}"; do case "${need[$i]}" in containerd | runc) unset "need[$i]" ;; esac; done
fi

if [ ${#need[@]} -gt 0 ]; then
  say "installing ${need[*]}"
  export DEBIAN_FRONTEND=noninteractive
  log=$(mktemp)
  # Without systemd as process 1 a package must not try to start its service.
  [ -d /run/systemd/system ] || export RUNLEVEL=1
  # Its daemon would change the host's firewall: it is neither started now nor at the next boot.
  case " ${need[*]} " in *" docker.io "*) [ ! -d /run/systemd/system ] || systemctl mask --now --quiet docker.service docker.socket ;; esac
  install() { apt-get install -y -q --no-install-recommends "${need[@]}" >"$log" 2>&1; }
  install || { apt-get update -q >>"$log" 2>&1 && install; } || { tail -20 "$log" >&2; die "apt could not install ${need[*]}; its words are above, all of them in $log"; }
  rm -f "$log"
fi

# CNI plugins where runtimes look for them.
if [ ! -x /opt/cni/bin/bridge ] && [ -x /usr/lib/cni/bridge ]; then
  mkdir -p /opt/cni/bin
  for plugin in /usr/lib/cni/*; do
    [ -e "/opt/cni/bin/${plugin##*/}" ] || ln -s "$plugin" /opt/cni/bin/
  done
  say "linked the CNI plugins into /opt/cni/bin"
fi

command -v node >/dev/null || die "needs Node (any from 18 on, to run npm; the pinned one comes with npm ci): apt-get install nodejs npm"
command -v npm >/dev/null || die "needs npm: apt-get install npm"
if [ ! -x node_modules/node/bin/node ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  say "installing npm packages"
  # A registry that lacks other platforms' packages makes `npm ci` refuse a lock that is right; `npm install` passes over them.
  npm ci --no-audit --no-fund --loglevel=error || npm install --no-save --no-audit --no-fund --loglevel=error
  touch node_modules/.package-lock.json
fi

kubectl=$(command -v kubectl || true)
minor=$([ -n "$kubectl" ] && "$kubectl" version --client -o json 2>/dev/null | sed -n 's/.*"minor": "\([0-9]*\).*/\1/p' | head -1 || true)
if [ -z "${minor:-}" ] || [ "$minor" -lt 30 ]; then
  say "no kubectl of 1.30 or newer here; the demo runs without, and https://kubernetes.io/docs/tasks/tools/ has one"
fi
say "all there"
