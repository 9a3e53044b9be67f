# shellcheck shell=bash
# Guest: runs one script to its end, says its exit status in $OUT/status, and turns the machine off. Sourced by the first
# process, with OUT, GUEST, SCRIPT and what the script is given in the environment and in "$@".
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
# No udev runs here: dmsetup makes the nodes of its devices itself.
export DM_DISABLE_UDEV=1
exec </dev/null >"$OUT/guest.log" 2>&1
ip link set lo up
if [ "${NETWORK:-}" = yes ]; then
  modprobe virtio_net
  ip addr add 10.0.2.15/24 dev eth0
  ip link set eth0 up
fi

# The disk that the host gave this serial number.
disk() {
  local block
  for block in /sys/block/vd*; do
    if [ "$(cat "$block/serial")" = "$1" ]; then
      echo "/dev/${block##*/}"
      return
    fi
  done
  echo "no disk '$1'"
  return 1
}
export -f disk

modprobe virtio_blk
bash "$GUEST/$SCRIPT" "$@"
echo $? >"$OUT/status"
# An unmount hangs if the disk below is gone; whoever watches has the status already.
timeout 10 umount -a -t ext4,xfs,btrfs 2>/dev/null
exec busybox poweroff -f -n
