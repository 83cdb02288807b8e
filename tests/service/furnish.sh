#!/bin/sh
# Furnishes the root of a booted host: the units as they are packaged, two nodes, one disk.
# In the environment: RINGFENCE (the command), UNITS (packaging/), GUEST (a program that uses a volume).
set -eu
root=$1
cat >"$root/usr/bin/ringfence" <<E
#!/bin/sh
exec $RINGFENCE "\$@"
E
chmod 755 "$root/usr/bin/ringfence"
cp "$UNITS"/systemd/*.service "$root/etc/systemd/system/"
mkdir -p "$root/etc/systemd/system/lvmlockd.service.d" "$root/usr/lib/ringfence"
cp "$UNITS/lvm2/lvmlockd.service.conf" "$root/etc/systemd/system/lvmlockd.service.d/ringfence.conf"
cp "$UNITS/lvm2/lvmlockd" "$root/usr/lib/ringfence/"
cp "$UNITS/tmpfiles.conf" "$root/usr/lib/tmpfiles.d/ringfence.conf"
cp "$UNITS/sysusers.conf" "$root/usr/lib/sysusers.d/ringfence.conf"

mkdir -p "$root/etc/ringfence" "$root/srv/n2/etc/ringfence" "$root/srv/n2/run"
truncate -s 128M "$root/srv/disk"
cat >"$root/etc/ringfence/ringfence.toml" <<E
[cluster]
name = "service"
two_node = true
[node.n1]
id = 1
fence = "manual"
[node.n2]
id = 2
fence = "manual"
[devices]
paths = ["/srv/disk"]
[hub]
socket = "/run/ringfence/hub"
E
cp "$root/etc/ringfence/ringfence.toml" "$root/srv/n2/etc/ringfence/"
echo 11111111111111111111111111111111 >"$root/etc/machine-id"
echo 22222222222222222222222222222222 >"$root/srv/n2/etc/machine-id"
echo boot-of-n2 >"$root/srv/n2/run/boot_id"

# No disk is there for stock LVM2: what it is told, and whether there was a daemon then, is noted.
rm "$root/usr/sbin/lvm"
cat >"$root/usr/sbin/lvm" <<'E'
#!/bin/sh
echo "$(systemctl is-active ringfence) $*" >>/srv/lvm.log
E
chmod 755 "$root/usr/sbin/lvm"

# What only has to be there for the order.
for name in corosync multipathd; do
	cat >"$root/etc/systemd/system/$name.service" <<E
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
E
done

cat >"$root/etc/systemd/system/guest.service" <<E
[Unit]
Description=a virtual machine, as far as a service manager can tell
After=ringfence.service
[Service]
Type=exec
ExecStart=$GUEST /srv/guest.log
E
