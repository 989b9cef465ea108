#!/bin/bash
# Boots systemd from the virtual machine's disk in namespaces of its own: container.ts gives the disk (written to), a name for the cgroups, the host name of
# the boot and a file for the console. Stays as the parent of PID 1, and ends as it ends: 129 (SIGHUP) asks for another boot, as reboot(2) says it in a PID namespace.
set -euo pipefail
if [ "${1:-}" = inside ]; then
  disk=$2 console=$3
  tree=${disk%/*}/tree
  mkdir -p "$tree"
  mount -o loop,noatime "$disk" "$tree"
  cd "$tree"
  mount -t proc -o nosuid,nodev,noexec proc proc
  # What the kernel keeps once for all is not this host's to change; what it keeps for each network is.
  mount --bind proc/sys proc/sys
  mount --bind proc/sys/net proc/sys/net
  mount -o remount,bind,ro proc/sys
  [ ! -e proc/sysrq-trigger ] || mount --bind /dev/null proc/sysrq-trigger
  mount -t sysfs -o nosuid,nodev,noexec,ro sysfs sys
  mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
  for hierarchy in /sys/fs/cgroup/*/; do
    name=$(basename "$hierarchy")
    mkdir "sys/fs/cgroup/$name"
    options=nosuid,nodev,noexec
    case $name in
    unified) mount -t cgroup2 -o "$options" cgroup2 "sys/fs/cgroup/$name" ;;
    systemd) mount -t cgroup -o "$options,none,name=systemd" cgroup "sys/fs/cgroup/$name" ;;
    *) mount -t cgroup -o "$options,$name" cgroup "sys/fs/cgroup/$name" ;;
    esac
  done
  mount -t tmpfs -o mode=755 tmpfs run
  cat /proc/sys/kernel/random/uuid >run/boot_id
  mount --bind run/boot_id proc/sys/kernel/random/boot_id
  mount -t tmpfs -o mode=755 tmpfs dev
  for node in null:3 zero:5 full:7 random:8 urandom:9 kmsg:11; do mknod -m 666 "dev/${node%:*}" c 1 "${node#*:}"; done
  mknod -m 666 dev/tty c 5 0
  mkdir dev/pts dev/shm
  mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts dev/pts
  mount -t tmpfs -o mode=1777 tmpfs dev/shm
  ln -s pts/ptmx dev/ptmx
  ln -s /proc/self/fd dev/fd
  : >dev/console
  mount --bind "$console" dev/console
  # The rest of the files that make this disk a container's: nothing here has disks to check, lines to wait on or links to set up.
  : >etc/fstab
  : >etc/resolv.conf
  for unit in systemd-networkd.service systemd-networkd.socket serial-getty@ttyS0.service getty@tty1.service console-getty.service ssh.service apparmor.service; do
    ln -sf /dev/null "etc/systemd/system/$unit"
  done
  mkdir -p etc/systemd/journald.conf.d
  printf '[Journal]\nReadKMsg=no\n' >etc/systemd/journald.conf.d/container.conf
  # No process may ask for a lower oom_score_adj where the container's own host has no CAP_SYS_RESOURCE.
  if (($((16#$(awk '/^CapBnd/ { print $2 }' /proc/self/status))) & 1 << 24)); then :; else
    grep -q restrict_oom_score_adj etc/containerd/config.toml || sed -i 's/^\[plugins."io.containerd.grpc.v1.cri"\]$/&\n  restrict_oom_score_adj = true/' etc/containerd/config.toml
  fi
  hostname "$(cat etc/hostname)"
  ip link set lo up
  # The link is given by container.ts when this process is there.
  until [ -e /proc/self/net/dev ] && grep -q eth0 /proc/self/net/dev; do sleep 0.02; done
  ip address add "$GUEST" dev eth0
  ip link set eth0 up
  ip route add default via "$GATEWAY"
  mkdir -p mnt
  pivot_root . mnt
  cd /
  umount -l mnt
  mount --make-rshared /
  # The clock is everybody's.
  exec setpriv --bounding-set -sys_time,-sys_module,-syslog --inh-caps -all env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --log-target=journal --show-status=no </dev/null >/dev/console 2>&1
fi
disk=$1 name=$2 console=$3
for hierarchy in /sys/fs/cgroup/*/; do
  mkdir -p "$hierarchy/$name"
  case $hierarchy in
  */cpuset/) for file in cpuset.cpus cpuset.mems; do cat "$hierarchy/$file" >"$hierarchy/$name/$file"; done ;;
  # To the scheduler a group is one process: with the weight of one, a whole host would get next to nothing beside others' work.
  */cpu/) echo 4096 >"$hierarchy/$name/cpu.shares" ;;
  esac
  echo $$ >"$hierarchy/$name/cgroup.procs"
done
exec unshare --mount --propagation private --uts --ipc --net --cgroup --pid --fork --kill-child=SIGKILL bash "$0" inside "$disk" "$console"
