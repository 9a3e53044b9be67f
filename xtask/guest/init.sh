#!/bin/busybox sh
# shellcheck shell=dash
#
# The first process of the virtual machine, out of an initramfs of busybox and a few modules. It makes a root of the
# host's own one (by virtiofs, read-only) under a layer in memory, so that every program of the host is there under its
# path and nothing that is written survives, except below the one directory that both share, and goes on there.
export PATH=/bin
/bin/busybox --install -s /bin
mount -t devtmpfs none /dev
mount -t proc none /proc
mount -t sysfs none /sys

give_up() {
  echo "init: $1" >/dev/console
  poweroff -f -n
}

read -r words </proc/cmdline
for word in $words; do
  case $word in
    lsvd.out=*) out=${word#*=} ;;
    lsvd.modules=*) modules=${word#*=} ;;
  esac
done
for module in /modules/*; do
  insmod "$module" || give_up "cannot load $module"
done

mount -t virtiofs host /host || give_up "cannot mount the host's root"
mount -t tmpfs -o size=75% none /layer
mkdir /layer/upper /layer/work
mount -t overlay -o lowerdir=/host,upperdir=/layer/upper,workdir=/layer/work none /new || give_up "no overlay"
for dir in dev proc sys; do
  mount -o move "/$dir" "/new/$dir"
done
mkdir -p /new/dev/shm /new/dev/pts
mount -t devpts none /new/dev/pts
mount -t tmpfs none /new/dev/shm
mount -t tmpfs none /new/run
# Last: they may lie below one of those.
mkdir -p "/new$out" /new/lib/modules
mount -o bind "/host$out" "/new$out" || give_up "cannot reach $out"
mount -o bind "/host$modules" /new/lib/modules || give_up "cannot reach $modules"
exec switch_root /new /bin/bash "$out/run"
