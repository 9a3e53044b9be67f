#!/bin/busybox sh
# shellcheck shell=dash
#
# The first process of a guest that has nothing but its disks: writes a record of a block to each of them, syncs it, and
# says so on the console, until each has as many as lsvd.records says; then turns the machine off. The serial number of
# a disk names it.
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
    lsvd.records=*) records=${word#*=} ;;
  esac
done
for module in /modules/*; do
  insmod "$module" || give_up "cannot load $module"
done

for block in /sys/block/vd*; do
  serial=$(cat "$block/serial")
  nth=0
  while [ "$nth" -lt "$records" ]; do
    echo "$serial record $nth" | dd of="/dev/${block##*/}" bs=4096 seek="$nth" conv=sync,fsync 2>/dev/null ||
      give_up "$serial refused record $nth"
    nth=$((nth + 1))
    echo "synced $serial $nth" >/dev/console
  done
done
echo "all records are written" >/dev/console
poweroff -f -n
