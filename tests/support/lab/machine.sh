#!/usr/bin/env bash
# The two halves of a lab machine that need a shell: `disk` lays its disk out and holds it, `boot` becomes its systemd.
# machine.py starts both, each in the namespaces that it belongs to, and explains what the machine is.
#
#   machine.sh disk FOLDER ROOT [SAVED]            in a mount namespace of its own; until standard input ends
#   machine.sh boot FOLDER [SOURCE:TARGET[:rw]]...  as process 1 of new namespaces, inside the disk's mount namespace
#   machine.sh capabilities                        what nothing in the machine may do, as setpriv reads it
set -euo pipefail

# The clock, the kernel's log, modules, raw devices and nodes have no namespace: to keep these would be to hand the
# whole machine over. `boot` and every command that is run inside go without them.
WITHOUT=-sys_time,-sys_module,-sys_rawio,-mknod,-syslog,-wake_alarm,-block_suspend,-mac_admin,-mac_override
WITHOUT=$WITHOUT,-bpf,-perfmon,-audit_control,-audit_read,-linux_immutable,-checkpoint_restore

# An overlay: what is written goes to memory and is gone with this namespace, but outlives a reboot.
disk() {
  local folder=$1 root=$2 saved=${3:-}
  mount -t tmpfs -o mode=755,size=2g lab "$folder"
  mkdir "$folder"/{written,work,root}
  [[ -z $saved ]] || tar --xattrs '--xattrs-include=*' -xf "$saved" -C "$folder/written"
  mount -t overlay -o "lowerdir=$root,upperdir=$folder/written,workdir=$folder/work" lab "$folder/root"
  cd "$folder/root"
  [[ -n $saved ]] || configure
  echo ready
  exec cat >/dev/null
}

# A small, quiet boot: no units but the journal and the bus, and none of what the machine underneath runs.
configure() {
  local units=etc/systemd/system unit
  rm -rf "$units"
  mkdir -p "$units" etc/systemd/journald.conf.d var/log/journal
  tr -d - </proc/sys/kernel/random/uuid >etc/machine-id
  echo lab >etc/hostname
  echo '127.0.0.1 localhost lab' >etc/hosts
  : >etc/fstab
  printf '[Journal]\nStorage=persistent\nRateLimitBurst=0\nReadKMsg=no\nAudit=no\n' >etc/systemd/journald.conf.d/lab.conf
  printf '[Unit]\nDescription=Lab\nRequires=basic.target dbus.socket\nWants=multi-user.target\nAllowIsolate=yes\n' \
    >"$units/lab.target"
  # Debian's multi-user.target wants whatever is installed; here it wants what a test enables.
  printf '[Unit]\nDescription=Multi-User System\nRequires=basic.target\nAfter=basic.target\n' >"$units/multi-user.target"
  for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer man-db.timer \
    logrotate.timer systemd-timesyncd.service systemd-pstore.service systemd-logind.service systemd-networkd.service \
    systemd-resolved.service systemd-binfmt.service proc-sys-fs-binfmt_misc.automount systemd-sysctl.service \
    systemd-modules-load.service systemd-random-seed.service sys-kernel-config.mount sys-kernel-debug.mount \
    sys-kernel-tracing.mount sys-fs-fuse-connections.mount dev-hugepages.mount dev-mqueue.mount getty.target; do
    ln -s /dev/null "$units/$unit"
  done
}

boot() {
  local folder=$1 root=$1/root bound
  shift
  kernel_files "$root"
  devices "$root"
  mount -t tmpfs -o mode=755,nosuid,nodev lab "$root/run"
  mount -t tmpfs -o mode=1777,nosuid,nodev lab "$root/tmp"
  mkdir "$root/run/host"
  echo lab >"$root/run/host/container-manager"
  for bound in "$@"; do bind "$root" "$bound"; done
  ip link set lo up

  cd "$root"
  mkdir -p .outside
  pivot_root . .outside
  umount -l /.outside
  rmdir /.outside
  # In a container systemd leaves propagation as it is, and without this a credential cannot be read by its service.
  mount --make-rshared /
  exec setpriv --bounding-set="$WITHOUT" --inh-caps="$WITHOUT" -- \
    env -i container=lab container_uuid="$(cat /etc/machine-id)" LANG=C.UTF-8 TERM=dumb \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --unit=lab.target --log-target=journal --show-status=no </dev/null
}

# /proc of its own with the knobs of the kernel read-only; /sys read-only, which also keeps udev from starting.
kernel_files() {
  local root=$1 part
  mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
  for part in sys bus fs irq sysrq-trigger; do
    [[ -e $root/proc/$part ]] || continue
    mount --bind "$root/proc/$part" "$root/proc/$part"
    mount -o remount,bind,ro "$root/proc/$part"
  done
  mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
  mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$root/sys/fs/cgroup"
}

# The harmless nodes and nothing else.
devices() {
  local dev=$1/dev node
  mount -t tmpfs -o mode=755,nosuid,noexec lab "$dev"
  for node in null zero full random urandom tty; do
    : >"$dev/$node"
    mount --bind "/dev/$node" "$dev/$node"
  done
  mkdir "$dev"/{pts,shm,mqueue}
  mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$dev/pts"
  mount -t tmpfs -o mode=1777,nosuid,nodev lab "$dev/shm"
  ln -s pts/ptmx "$dev/ptmx"
  ln -s /proc/self/fd "$dev/fd"
  ln -s fd/0 "$dev/stdin"
  ln -s fd/1 "$dev/stdout"
  ln -s fd/2 "$dev/stderr"
}

bind() {
  local root=$1 source target mode
  IFS=: read -r source target mode <<<"$2"
  if [[ -d $source ]]; then mkdir -p "$root$target"; else install -D /dev/null "$root$target"; fi
  mount --rbind "$source" "$root$target"
  [[ $mode == rw ]] || mount -o remount,bind,ro "$root$target"
}

case $1 in
  disk | boot) "$@" ;;
  capabilities) echo "$WITHOUT" ;;
esac
