#!/usr/bin/env bash
# Guest: a daemon with its journal, its bucket or both on a disk whose every write and barrier dm-log-writes keeps, driven
# by a client that marks in that log what was acknowledged. Each argument is a part: NAME:FILE-SYSTEM:KIND:SYNC:WAVES. Kinds:
#   journal   --flush journal, the journal on the disk, the bucket elsewhere and without any of the data
#   both      --flush journal, small batches and segments, journal and bucket on the disk
#   bucket    --flush object, the bucket on the disk
# With `no-sync` the daemon's fsync and fdatasync do nothing, which the cuts must show.
set -euo pipefail
modprobe -a dm-mod dm-log-writes
scripts=$(dirname "$GUEST")/scripts

part() {
  local name=$1 fs=$2 kind=$3 sync=$4 waves=$5 dir=/mnt/$1 data log bucket
  data=$(disk "data-$name")
  log=$(disk "log-$name")
  dmsetup create "$name" --table "0 $(blockdev --getsz "$data") log-writes $data $log"
  case $fs in
    # Nothing is left for the kernel to initialise in the background: all writes are the daemon's and the journal's.
    ext4) mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 "/dev/mapper/$name" ;;
    xfs) modprobe xfs && mkfs.xfs -q "/dev/mapper/$name" ;;
  esac
  mkdir -p "$dir"
  mount "/dev/mapper/$name" "$dir"

  local far=/run/far-$name
  local -a serve=(--flush journal --journal "$dir/journal")
  local -a environment=(RUST_BACKTRACE=1)
  case $kind in
    journal)
      bucket=$far
      # Small segments: a recovery reads the room that is reserved for one, too.
      serve+=(--batch 12M --batch-age 1h --journal-size 24M)
      ;;
    both)
      bucket=$dir/bucket
      serve+=(--batch 300K --batch-age 200ms --journal-size 2M)
      ;;
    bucket)
      bucket=$dir/bucket
      serve=(--batch 300K --batch-age 200ms)
      ;;
  esac
  if [ "$sync" = no-sync ]; then
    environment+=("LD_PRELOAD=$(ls /usr/lib/*/libeatmydata.so)")
  fi
  "$LSVD" create "file://$bucket/db1" --size 1G
  env "${environment[@]}" "$LSVD" serve "file://$bucket/db1" --listen "unix:/run/$name.sock" "${serve[@]}" \
    >"/run/$name.uri" 2>"$OUT/$name.log" &
  local daemon=$!
  until [ -s "/run/$name.uri" ]; do
    kill -0 $daemon || { cat "$OUT/$name.log"; return 1; }
    sleep 0.05
  done
  [ "$bucket" != "$far" ] || cp -r "$far" "$OUT/$name.bucket"
  # What there was before is no matter of the daemon's syncs.
  sync -f "$dir"
  dmsetup message "$name" 0 mark begin
  /usr/bin/python3 "$scripts/ordered.py" write "$(cat "/run/$name.uri")" "$OUT/$name.json" --waves "$waves" --fua-every 7 \
    --marks "$name"
  dmsetup message "$name" 0 mark end
  kill -9 $daemon
  wait $daemon || true
  if [ "$bucket" = "$far" ]; then
    diff -r "$far" "$OUT/$name.bucket" || { echo "$name: the bucket was not to change"; return 1; }
  fi
  umount "$dir"
  # Writes what the log has not yet.
  dmsetup remove "$name"
  blockdev --flushbufs "$log"
}

for argument in "$@"; do
  IFS=: read -r name fs kind sync waves <<<"$argument"
  part "$name" "$fs" "$kind" "$sync" "$waves"
done
