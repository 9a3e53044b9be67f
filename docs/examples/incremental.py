#!/usr/bin/python3
"""Makes a copy of an older snapshot one of a served moment, reading what changed between the two and nothing else.

    incremental.py URI SNAPSHOT FILE

URI is an export of a moment (lsvd serve URL@MOMENT), FILE a copy of the volume as of SNAPSHOT. Needs libnbd's Python
(Debian: python3-libnbd). docs/nbd.md says what the flags mean.
"""

import os
import sys

import nbd

uri, snapshot, path = sys.argv[1:]
context = "lsvd:changed-since:" + snapshot
CHANGED, ZERO = 1, 2
STEP = 1 << 20

h = nbd.NBD()
h.add_meta_context(context)
h.connect_uri(uri)
if not h.can_meta_context(context):
    sys.exit(f"{uri} has no {context}: copy all of it")

size, at, copied = h.get_size(), 0, 0
with open(path, "r+b") as copy:
    copy.truncate(size)
    while at < size:
        extents = []
        h.block_status(min(size - at, 1 << 30), at, lambda name, offset, entries, error: extents.extend(entries))
        for length, flags in zip(extents[0::2], extents[1::2]):
            for piece in range(at, at + length if flags & CHANGED else at, STEP):
                count = min(STEP, at + length - piece)
                copy.seek(piece)
                copy.write(bytes(count) if flags & ZERO else h.pread(count, piece))
                copied += count
            at += length
    copy.flush()
    os.fsync(copy.fileno())
print(f"{copied} of {size} bytes changed since {snapshot}")
