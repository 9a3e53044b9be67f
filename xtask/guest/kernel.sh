#!/usr/bin/env bash
# Guest: a file system on the kernel's own NBD client, attached by `lsvd attach` to the host's server at $URI, or on a disk
# that QEMU's NBD client has there. The arguments are who attaches (kernel, qemu), the file system, and what to do:
#   fill    make it, copy $TREE onto it, sync, trim, say what it holds, and write and sync records until the power is cut
#   churn   write and sync records on the one that is there until the power is cut
#   again   check what is left, as below, mount it again, and write and sync records until the power is cut, while other
#           files come and go that nobody syncs
#   check   mount what is left, which recovers it, compare, unmount, and have it checked
#   database        make it, with a PostgreSQL server on it, and commit rows beside pgbench until the power is cut
#   database-check  mount it, have the server recover, and compare; then examine its pages, its indexes and the file system
#   space   make it, fill it, remove four files of five, trim, wait until the host has seen enough, and compare the rest
#   grow    make it, and write and sync records while the device grows to 3 GiB, grow the file system with it, and fill what
#           it did not hold before; nothing may fail
#   endure  make it, and write and sync records while the server comes and goes; nothing may fail
set -euo pipefail
client=$1 fs=$2 what=$3
mnt=/mnt/lsvd
mkdir -p "$mnt"
# The records of this boot, and those of so many boots before, which must be there each time.
records=records.${ROUND:-0}
kept=5
[ "$fs" = ext4 ] || modprobe "$fs"

# The command fails and says these words.
refused() {
  local words=$1
  shift
  if timeout 20 "$@" >/run/refused 2>&1 || ! grep -q "$words" /run/refused; then
    echo "'$*' did not say '$words': $(cat /run/refused)"
    return 1
  fi
}

attach() {
  DEVICE=/dev/nbd0
  # The kernel loads its client when it is asked for.
  "$LSVD" attach "$URI" $DEVICE --connections "${CONNECTIONS:-1}" --timeout 3s --dead-conn-timeout 60s \
    >/run/attached 2>"$OUT/attach-$what.log" &
  ATTACH=$!
  until [ -s /run/attached ]; do
    kill -0 $ATTACH || { cat "$OUT/attach-$what.log"; return 1; }
    sleep 0.05
  done
}

make() {
  case $fs in
    ext4) mkfs.ext4 -q -F "$DEVICE" ;;
    xfs | btrfs) "mkfs.$fs" -q -f "$DEVICE" ;;
  esac
  mount "$DEVICE" "$mnt"
}

verify() {
  case $fs in
    ext4) e2fsck -f -n "$DEVICE" ;;
    xfs) xfs_repair -n "$DEVICE" ;;
    btrfs) btrfs check --readonly "$DEVICE" ;;
  esac >"$OUT/fsck.log" 2>&1 || { cat "$OUT/fsck.log"; return 1; }
}

sums() {
  (cd "$mnt/tree" && find . -type f -print0 | sort -z | xargs -0 sha256sum)
}

# Everything that was synced must be there, and the file system be sound.
compare() {
  local state pairs=()
  mount "$DEVICE" "$mnt"
  if [ -e "$OUT/sums" ]; then
    sums | diff "$OUT/sums" - || { echo "LOST: files are not what was synced"; return 1; }
  fi
  for state in "$OUT"/records.*.json; do
    pairs+=("$mnt/$(basename "$state" .json)" "$state")
  done
  /usr/bin/python3 "$GUEST/records.py" check "${pairs[@]}"
  umount "$mnt"
  verify
}

# Old records go, and what they were on is trimmed.
forget() {
  local old=records.$((ROUND - kept))
  rm -f "$OUT/$old.json"
  rm -rf "${mnt:?}/$old" "$mnt/noise"
  fstrim "$mnt"
}

noise() {
  while cp -r "$mnt/tree/copied" "$mnt/noise" && rm -r "$mnt/noise"; do :; done
}

case $client in
  kernel) attach ;;
  qemu) DEVICE=$(disk nbd) ;;
esac

case $what in
  fill)
    make
    mkdir "$mnt/tree"
    head -c 8000000 /dev/urandom >"$mnt/tree/large"
    cp -r "$TREE" "$mnt/tree/copied"
    head -c 20000000 /dev/urandom >"$mnt/gone"
    sync
    rm "$mnt/gone"
    sync
    fstrim -v "$mnt"
    sums >"$OUT/sums"
    ;;
  churn)
    mount "$DEVICE" "$mnt"
    ;;
  again)
    compare
    mount "$DEVICE" "$mnt"
    forget
    noise >/dev/null 2>&1 &
    ;;
  check)
    compare
    ;;
  database)
    # shellcheck source=/dev/null
    . "$GUEST/postgres.sh"
    make
    server_is_made
    rows_are_committed
    ;;
  database-check)
    # shellcheck source=/dev/null
    . "$GUEST/postgres.sh"
    mount "$DEVICE" "$mnt"
    server_is_sound
    ;;
  space)
    make
    mkdir "$mnt/tree" "$mnt/gone"
    for nth in $(seq 400); do
      to=$mnt/gone
      [ $((nth % 5)) -ne 0 ] || to=$mnt/tree
      head -c $((1000 * (nth % 17 + 1) * (nth % 17 + 1) * 3)) /dev/urandom >"$to/$nth"
    done
    sync
    sums >"$OUT/sums"
    rm -r "$mnt/gone"
    sync
    fstrim -v "$mnt"
    du -sm "$mnt/tree" | cut -f1 >"$OUT/trimmed.new"
    mv "$OUT/trimmed.new" "$OUT/trimmed"
    until [ -e "$OUT/enough" ]; do sleep 0.2; done
    umount "$mnt"
    mount "$DEVICE" "$mnt"
    sums | diff "$OUT/sums" - || { echo "LOST: files are not what was synced"; exit 1; }
    umount "$mnt"
    verify
    ;;
  endure)
    make
    if [ "$client" = kernel ]; then
      refused 'attached already' "$LSVD" attach "$URI" "$DEVICE"
      refused 'is in use' "$LSVD" detach "$DEVICE"
      refused 'is not attached' "$LSVD" detach /dev/nbd1
    fi
    ;;
  grow)
    make
    mkdir "$mnt/tree"
    head -c 8000000 /dev/urandom >"$mnt/tree/before"
    sync
    ;;
esac
case $what in
  fill | churn | again)
    /usr/bin/python3 "$GUEST/records.py" write "$mnt/$records" "$OUT/$records.json"
    ;;
  grow | endure)
    if [ "$what" = grow ]; then
      (
        until [ "$(blockdev --getsize64 "$DEVICE")" = $((3 << 30)) ]; do sleep 0.2; done
        resize2fs "$DEVICE"
        # More than the device held before, in files of known contents.
        for nth in 1 2 3 4; do
          head -c 300000000 /dev/zero | openssl enc -aes-128-ctr -nosalt -K "0$nth" -iv 00 2>/dev/null >"$mnt/tree/after.$nth"
        done
        sync
        sums >"$OUT/sums.grown"
        df -B1 --output=size "$mnt" | tail -n1 >"$OUT/df"
        echo "ext4 of $(cat "$OUT/df") bytes on $(blockdev --getsize64 "$DEVICE")" >"$OUT/grown"
      ) >"$OUT/grow.log" 2>&1 &
      GROW=$!
    fi
    /usr/bin/python3 "$GUEST/records.py" write "$mnt/$records" "$OUT/$records.json" --until "$OUT/enough"
    if [ "$what" = grow ]; then
      wait "$GROW" || { cat "$OUT/grow.log"; exit 1; }
      [ "$(cat "$OUT/df")" -gt 2500000000 ] || { echo "the file system has $(cat "$OUT/df") bytes"; exit 1; }
      umount "$mnt"
      echo 3 >/proc/sys/vm/drop_caches
      mount "$DEVICE" "$mnt"
      sums | diff "$OUT/sums.grown" - || { echo "LOST: files are not what was synced"; exit 1; }
    fi
    /usr/bin/python3 "$GUEST/records.py" check "$mnt/$records" "$OUT/$records.json"
    umount "$mnt"
    verify
    if dmesg | grep -iE 'I/O error|EXT4-fs error|aborted journal'; then
      exit 1
    fi
    ;;
esac

if [ -n "${ATTACH:-}" ]; then
  # Nobody uses it any more: the signal detaches it.
  kill -TERM "$ATTACH"
  wait "$ATTACH" || { cat "$OUT/attach-$what.log"; exit 1; }
  [ "$(cat /sys/block/nbd0/size)" = 0 ] || { echo "the device is still there"; exit 1; }
fi
