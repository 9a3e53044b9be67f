#!/usr/bin/env python3
"""Reads an lsvd volume (format 2) that lies in a directory and writes it out as a raw image.

    read_volume.py VOLUME_DIRECTORY IMAGE

Written from ../format.md alone, with Python's standard library: for the day on which nothing else is left.
Slow and exact: every checksum is verified, and whatever does not verify ends it with an error. Checks that only
tell a newer version from damage (reserved bytes) are left to lsvd; unknown flags and kinds are refused.
"""
import json, os, re, struct, sys

BLOCK, FRAME = 4096, 8 + 4096
# magic, crc, version, flags, frame_blocks, -, header_bytes, entries, object_bytes, payload_blocks, -,
# volume, epoch, number, writer, sealed, journal record, journal id, -
HEADER = struct.Struct("<12sIHHHHIIQII16sQQ16sQQ16s64s")
DATA, ZERO, TRIM, RELOCATION, FENCE = 1, 2, 3, 4, 5

TABLE = []
for value in range(256):
    for _ in range(8):
        value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    TABLE.append(value)


def crc32c(data, crc=0):
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def need(condition, words):
    if not condition:
        sys.exit(f"error: {words}")


def numbers(folder):
    """The numbers in a folder, by the names that are numbers; other names are somebody else's."""
    names = (name for name in os.listdir(folder) if re.fullmatch("[0-7][0-9a-f]{15}", name))
    return sorted(int(name, 16) for name in names if int(name, 16) > 0)


def read(folder, number):
    with open(os.path.join(folder, f"{number:016x}"), "rb") as file:
        return file.read()


def superblock(folder):
    """The highest version that is whole; a damaged one is said and passed over."""
    for number in reversed(numbers(folder)):
        line, newline, body = read(folder, number).partition(b"\n")
        match = re.fullmatch(rb"lsvd superblock format=(\d+) number=([0-9a-f]{16}) body_bytes=(\d{8}) crc32c=([0-9a-f]{8})", line)
        need(not match or match[1] == b"2", f"superblock {number} is of a newer format")
        crc = crc32c(body, crc32c(struct.pack("<Q", number)))
        if match and newline and int(match[2], 16) == number and int(match[3]) == len(body) and int(match[4], 16) == crc:
            record = json.loads(body)
            need(not record.get("features_to_read"), f"the volume needs {record.get('features_to_read')} to be read")
            return record
        print(f"warning: superblock {number} is damaged", file=sys.stderr)
    need(False, f"no superblock in {folder}")


def header(data, number, volume, name):
    """The verified identity bytes, epoch, header length and entries of a log object."""
    need(len(data) >= HEADER.size and data[:12] == b"lsvd-log-v2\n", f"{name} is no log object of format 2")
    (_, crc, version, flags, frame_blocks, _, header_bytes, count, object_bytes, payload_blocks, _,
     own_volume, epoch, own_number, _, _, _, _, _) = HEADER.unpack_from(data)
    need(HEADER.size <= header_bytes <= len(data), f"{name} is truncated in its header")
    need(crc == crc32c(data[16:header_bytes]), f"{name}: the header's checksum is wrong")
    need((version, flags, frame_blocks) == (2, 0, 1), f"{name} is of a newer version")
    need((own_volume, own_number) == (volume, number), f"{name} is another volume's object, or under a wrong name")
    need(len(data) == object_bytes == header_bytes + payload_blocks * FRAME, f"{name} has {len(data)} bytes, not {object_bytes}")
    entries, at = [], HEADER.size
    for _ in range(count):
        kind, entry_flags, blocks, start = struct.unpack_from("<BBxxIQ", data, at)
        need(DATA <= kind <= FENCE and entry_flags == 0, f"{name} has an entry of a newer version")
        source = struct.unpack_from("<16sQI", data, at + 16) if kind == RELOCATION else None
        entries.append((kind, start, blocks, source))
        at += 48 if kind == RELOCATION else 16
    need(at == header_bytes, f"{name}: the entries do not fill the header")
    return data[48:96], epoch, header_bytes, entries


def replay(folder, record):
    """The map from block to (volume, number, ordinal), and where each object's frames are."""
    volume, present = bytes.fromhex(record["volume_id"]), set(numbers(folder))
    blocks, objects, number, last, epoch = {}, {}, record["log_first_number"], 0, 0
    while number in present:
        name = os.path.join(folder, f"{number:016x}")
        identity, own_epoch, header_bytes, entries = header(read(folder, number), number, volume, name)
        need(own_epoch >= epoch, f"{name} is of epoch {own_epoch}, but comes after epoch {epoch}")
        objects[number], epoch, last, ordinal, following = (identity, header_bytes), own_epoch, number, 0, number + 1
        for kind, start, count, source in entries:
            if kind == FENCE:
                following = start
            elif kind in (ZERO, TRIM):
                for block in [b for b in blocks if start <= b < start + count]:
                    del blocks[block]
            else:
                for i in range(count):
                    moved_from = source and (source[0], source[1], source[2] + i)
                    if kind == DATA or blocks.get(start + i) == moved_from:
                        blocks[start + i] = (volume, number, ordinal + i)
                ordinal += count
        number = following
    reached = max(record.get("closed_at", 0), record.get("log_reached", 0))
    need(last >= reached, f"the log ends at {last}, but had reached {reached}: objects are missing")
    need(max(present, default=0) < number + record["window"], f"object {number} is missing, but far above it there are others")
    print(f"{len(objects)} objects up to {last}; beyond them {sum(n > last for n in present)} that do not count")
    return blocks, objects


def main(directory, image):
    record, folder = superblock(os.path.join(directory, "superblock")), os.path.join(directory, "log")
    blocks, objects = replay(folder, record)
    with open(image, "wb") as out:
        out.truncate(record["size_bytes"])
        for block, (volume, number, ordinal) in sorted(blocks.items()):
            identity, header_bytes = objects[number]
            with open(os.path.join(folder, f"{number:016x}"), "rb") as file:
                file.seek(header_bytes + ordinal * FRAME)
                frame = file.read(FRAME)
            crc, flags = struct.unpack_from("<II", frame)
            need(crc == crc32c(frame[4:], crc32c(identity + struct.pack("<I", ordinal))), f"object {number}: block {ordinal} is damaged")
            need(flags == 0, f"object {number}: block {ordinal} is of a newer version")
            if block < record["size_bytes"] // BLOCK:
                out.seek(block * BLOCK)
                out.write(frame[8:])


if __name__ == "__main__":
    need(len(sys.argv) == 3, __doc__.strip())
    main(*sys.argv[1:])
