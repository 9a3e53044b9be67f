#!/usr/bin/env python3
"""Reads an lsvd volume (format 2) that lies in a directory and writes it out as a raw image.

    read_volume.py VOLUME_DIRECTORY IMAGE

Written from ../format.md alone, with Python's standard library: for the day on which nothing else is left.
Slow and exact: every checksum is verified, and whatever does not verify ends it with an error. Checks that only
tell a newer version from damage (reserved bytes) are left to lsvd; unknown flags and kinds are refused.
"""
import json, os, re, struct, sys

BLOCK, FRAME, REGION = 4096, 8 + 4096, 16384
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


class Damaged(Exception):
    """A checkpoint that can not be used; the one before may do."""


class Varints:
    """Takes numbers of seven bits a byte, the lowest first, and ids, one after the other."""
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, length):
        self.at += length
        if self.at > len(self.data):
            raise Damaged("it ends too early")
        return self.data[self.at - length:self.at]

    def number(self):
        value, shift = 0, 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def step(self):
        step = self.number()
        return -(step // 2 + 1) if step % 2 else step // 2

    def numbers(self, count):
        return [self.number() for _ in range(count)]


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
            unknown = set(record.get("features_to_read", [])) - {"checkpoint"}
            need(not unknown, f"the volume needs {sorted(unknown)} to be read")
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


def read_part(folder, part, offset, length):
    """Some bytes of the object of checkpoint/ that is called (as of, epoch, serial)."""
    try:
        with open(os.path.join(folder, "%016x-%016x-%08x" % part), "rb") as file:
            file.seek(offset)
            return file.read(length)
    except FileNotFoundError:
        raise Damaged("%016x-%016x-%08x is missing" % part)


def root(data, volume, part):
    """Stamp, next number, objects by slot, and regions (index, part, offset, length) of a verified root."""
    own_seed = crc32c(volume + struct.pack("<QQI", *part))
    if len(data) < 32 or data[:12] != b"lsvd-root-1\n" or struct.unpack_from("<Q", data, 24)[0] != len(data):
        raise Damaged("its root is truncated or none")
    crc, version, flags = struct.unpack_from("<IHH", data, 12)
    if crc != crc32c(data[16:], own_seed):
        raise Damaged("its root's checksum is wrong")
    need((version, flags) == (1, 0), "a checkpoint is of a newer version")
    fields = Varints(data[32:])
    need(fields.number() == 1, "a checkpoint refers to other volumes")
    fields.take(16)
    epoch, writer = fields.number(), fields.take(16)
    _, behind, _, last = fields.numbers(4)
    if last:
        fields.numbers(2)
    if last == 2:
        fields.take(16), fields.number()
    for _ in range(fields.number()):
        fields.take(16), fields.numbers(2)
    fields.numbers(2 * fields.number())
    openings, opening_epoch = [], 0
    for _ in range(fields.number()):
        opening_epoch += fields.number()
        openings.append((opening_epoch, fields.take(16)))
    objects, slot, number = {}, 0, 0
    for _ in range(fields.number()):
        slot += fields.number()
        number += fields.step()
        kind = fields.number()
        need(kind % 2 == 0, f"object {number} is of format 1")
        entries, payload_blocks, live_blocks = fields.numbers(3)
        if live_blocks == 0:
            fields.number()
        opened, who = openings[kind // 2]
        identity = volume + struct.pack("<QQ", opened, number) + who
        objects[slot] = (number, identity, 192 + 16 * entries, payload_blocks)
        slot += 1
    parts = []
    for _ in range(fields.number()):
        as_of, written, serial = fields.numbers(3)
        parts.append((part[0] - as_of, part[1] - written, serial))
        fields.take(8)
    regions, index, ends = [], 0, [96] * len(parts)
    for _ in range(fields.number()):
        index += fields.number()
        where = fields.number()
        offset = ends[where] + fields.step()
        length = fields.number()
        ends[where] = offset + length
        regions.append((index, parts[where], offset, length))
        index += 1
    if fields.at != len(fields.data):
        raise Damaged("its root goes on after its end")
    return (part[0], epoch, writer), part[0] + behind, objects, regions


def region(data, volume, part, index, objects, blocks):
    """Puts the runs of a region into the map."""
    seed = crc32c(volume + struct.pack("<QQII", *part, index))
    if len(data) < 4 or struct.unpack_from("<I", data)[0] != crc32c(data[4:], seed):
        raise Damaged(f"region {index} is damaged")
    runs, block = Varints(data[4:]), index * REGION
    while runs.at < len(runs.data):
        gap, count, slot = runs.numbers(3)
        block += gap
        if slot:
            number, _, _, payload_blocks = objects.get(slot - 1, (0, b"", 0, 0))
            ordinal = runs.number()
            if ordinal + count > payload_blocks:
                raise Damaged(f"region {index} refers to what object {number} does not have")
            blocks.update((block + i, (volume, number, ordinal + i)) for i in range(count))
        block += count
    if block > (index + 1) * REGION:
        raise Damaged(f"region {index} goes on after its end")


def checkpoint(directory, record, present):
    """The map, the objects, the next number, the last one and its epoch, of the newest checkpoint that is whole."""
    volume, kept = bytes.fromhex(record["volume_id"]), record.get("checkpoints", [])
    folder = os.path.join(directory, "checkpoint")
    for entry in reversed(kept):
        part, as_of = tuple(entry["part"][key] for key in ("as_of", "epoch", "serial")), entry["as_of"]
        try:
            data = read_part(folder, part, entry["root_offset_bytes"], entry["root_bytes"])
            stamp, following, objects, regions = root(data, volume, part)
            if as_of in present:
                identity, _, _, _ = header(read(os.path.join(directory, "log"), as_of), as_of, volume, f"object {as_of}")
                if identity != volume + struct.pack("<QQ", stamp[1], as_of) + stamp[2]:
                    raise Damaged("it is of another history")
            elif as_of > kept[0]["as_of"]:
                raise Damaged(f"object {as_of} is missing")
            blocks = {}
            for index, own, offset, length in regions:
                region(read_part(folder, own, offset, length), volume, own, index, objects, blocks)
            known = {number: (identity, header_bytes) for number, identity, header_bytes, _ in objects.values()}
            return blocks, known, following, as_of, stamp[1]
        except Damaged as damage:
            print(f"warning: checkpoint as of {as_of} is passed over: {damage}", file=sys.stderr)
    first = record["log_first_number"]
    need(not kept or first in present, "no checkpoint is left, and the log's beginning was deleted")
    return {}, {}, first, 0, 0


def replay(directory, record):
    """The map from block to (volume, number, ordinal), and where each object's frames are."""
    folder = os.path.join(directory, "log")
    volume, present = bytes.fromhex(record["volume_id"]), set(numbers(folder))
    blocks, objects, number, last, epoch = checkpoint(directory, record, present)
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
    reached = max([record.get("closed_at", 0), record.get("log_reached", 0)] + [entry["as_of"] for entry in record.get("checkpoints", [])])
    need(last >= reached, f"the log ends at {last}, but had reached {reached}: objects are missing")
    need(max(present, default=0) < number + record["window"], f"object {number} is missing, but far above it there are others")
    print(f"{len(objects)} objects up to {last}; beyond them {sum(n > last for n in present)} that do not count")
    return blocks, objects


def main(directory, image):
    record, folder = superblock(os.path.join(directory, "superblock")), os.path.join(directory, "log")
    blocks, objects = replay(directory, record)
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
