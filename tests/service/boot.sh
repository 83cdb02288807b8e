#!/bin/sh
# Boots a systemd of its own in this process's namespaces (unshare --mount --pid --fork --cgroup --ipc --uts
# --net): boot.sh DIRECTORY SETUP.  Its root is an overlay on this machine's; what it may change outside is
# read-only.  SETUP, a script, furnishes the new root (its first argument) before systemd starts.
set -eu
directory=$1 setup=$2
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$directory"
mkdir "$directory/upper" "$directory/work" "$directory/root"
mount -t overlay -o "lowerdir=/,upperdir=$directory/upper,workdir=$directory/work" overlay "$directory/root"
root=$directory/root

mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/sys/fs/cgroup"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
for place in run dev; do mount -t tmpfs -o mode=755 tmpfs "$root/$place"; done
for device in null zero full random urandom; do
	touch "$root/dev/$device"
	mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/shm"
mount -t tmpfs tmpfs "$root/dev/shm"
ln -s /proc/self/fd "$root/dev/fd"
ip link set lo up
echo n1 >"$root/etc/hostname"

# This machine's own services, and what clears /tmp at boot: the project may lie there.
rm -rf "$root"/etc/systemd/system/* "$root/usr/lib/tmpfiles.d/tmp.conf" "$root/var/log/journal"
mkdir "$root/var/log/journal"
"$setup" "$root"

cd "$root"
mkdir -p .outside
pivot_root . .outside
umount -l .outside
exec >/run/console 2>&1 </dev/null
exec env -i container=ringfence-test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
	/lib/systemd/systemd --system --unit=multi-user.target --log-target=journal
