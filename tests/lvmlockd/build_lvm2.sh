#!/bin/sh
# Build LVM2's commands of some versions, with lvmlockd support, for `make lvm2-versions`:
#
#     build_lvm2.sh DIR VERSION...        DIR/VERSION/bin has the commands; "git": the newest commit there is
#
# LVM2_SOURCE: a clone of LVM2 with its tags; made in DIR/source from LVM2_URL, if it is not there.
# Needs git, gcc, make, pkg-config and the headers of libdlm, libaio, libblkid and libudev
# (Debian: libdlm-dev libaio-dev libblkid-dev libudev-dev).
set -eu

dir=$(realpath -m "$1")
shift
mkdir -p "$dir"
source=${LVM2_SOURCE:-$dir/source}
if [ ! -d "$source/.git" ]; then
    git clone --quiet "${LVM2_URL:-https://github.com/lvmteam/lvm2}" "$source"
fi

for version; do
    place=$dir/$version
    [ -d "$place/bin" ] && continue
    rm -rf "$place"
    mkdir "$place"
    commit=v$(echo "$version" | tr . _)
    [ "$version" = git ] && commit=HEAD
    git -C "$source" archive "$commit" | tar -x -C "$place"
    # As Debian has the places that are compiled in; without what asks for more libraries.  Not the daemon:
    # that of 2.03.39 needs sanlock, too.
    if ! {
        cd "$place" &&
            ./configure --enable-lvmlockd-dlm --enable-lvmpolld --disable-readline --disable-editline \
                --disable-selinux --disable-udev_sync --disable-udev_rules \
                --with-default-pid-dir=/run --with-default-run-dir=/run/lvm \
                --with-default-locking-dir=/run/lock/lvm --with-thin=none --with-cache=none \
                --with-vdo=none --with-writecache=none --with-integrity=none &&
            nice -n 19 make -j1 tools
    } >"$place.log" 2>&1; then
        echo "LVM2 $version cannot be built: see $place.log" >&2
        exit 1
    fi
    mkdir "$place/bin"
    cat >"$place/bin/lvm" <<END
#!/bin/sh
export LD_LIBRARY_PATH=$(dirname "$(find "$place/libdm" -name 'libdevmapper.so*' | head -1)")
[ "\${0##*/}" = lvm ] || set -- "\${0##*/}" "\$@"
exec $place/tools/lvm "\$@"
END
    chmod +x "$place/bin/lvm"
    "$place/bin/lvm" help 2>&1 | awk '/^ *(pv|vg|lv)[a-z]+ / { print $1 }' | while read -r name; do
        ln -s lvm "$place/bin/$name"
    done
    echo "LVM2 $version: $("$place/bin/lvs" --version 2>/dev/null | head -1)"
done
