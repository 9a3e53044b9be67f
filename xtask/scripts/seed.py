#!/usr/bin/env python3
"""Format 1 from the words of the thread that describes it, and nothing else: an encoder and a replayer.

    seed.py encode DIRECTORY IMAGE --seed N --blocks N [--objects N] [--full N] [--digits N] [--first N] [--gap N]
    seed.py replay DIRECTORY IMAGE --bytes N

`encode` writes objects of random writes, the first --full of them with all 1,024 entries, leaves out number --gap, and
writes to IMAGE what the volume holds up to there. `replay` writes to IMAGE what the objects in DIRECTORY make of a
volume. It shares no code with lsvd, for tests that compare the two.
"""
import argparse, os, random, struct, sys

SECTOR, HEADER, ENTRIES = 4096, 12 * 1024, 1024


def encode(to):
    rng, image, data_bytes = random.Random(to.seed), bytearray(to.blocks * SECTOR), 0
    for nth in range(to.objects):
        number, before, header, data = to.first + nth, to.gap is None or to.first + nth < to.gap, b"", b""
        full = nth < to.full
        for _ in range(ENTRIES if full else rng.randrange(12)):
            sectors = 1 if full else rng.randrange(1, min(9, to.blocks))
            address, payload = rng.randrange(to.blocks - sectors + 1) * SECTOR, rng.randbytes(sectors * SECTOR)
            header += struct.pack(">QI", address, len(payload))
            data += payload
            if before:
                image[address:address + len(payload)] = payload
        if len(header) < HEADER:  # size 0; "it (and all subsequent header entries) should be ignored"
            header += struct.pack(">QI", rng.getrandbits(64), 0)
            header += rng.randbytes(HEADER - len(header)) if rng.random() < 0.5 else bytes(HEADER - len(header))
        if number != to.gap:
            with open(os.path.join(to.directory, f"{number:0{to.digits}x}"), "wb") as file:
                file.write(header + data)
    with open(to.image, "wb") as file:
        file.write(image)


def replay(of):
    names = {int(name, 16): name for name in os.listdir(of.directory) if all(c in "0123456789abcdef" for c in name)}
    number, image = min(names, default=0), bytearray(of.bytes)
    while number in names:
        with open(os.path.join(of.directory, names[number]), "rb") as file:
            content = file.read()
        at, entries = HEADER, [struct.unpack_from(">QI", content, nth * 12) for nth in range(ENTRIES)]
        for address, size in entries:
            if size == 0:
                break
            if at + size > len(content) or address + size > of.bytes:
                sys.exit(f"error: {names[number]}: {size} bytes at {address} are not all there")
            image[address:address + size] = content[at:at + size]
            at += size
        if at != len(content):
            sys.exit(f"error: {names[number]} has {len(content)} bytes, but its entries end at {at}")
        number += 1
    with open(of.image, "wb") as file:
        file.write(image)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("what", choices=["encode", "replay"])
parser.add_argument("directory")
parser.add_argument("image")
for flag, default in [("seed", 0), ("blocks", 1), ("objects", 20), ("full", 0), ("digits", 16), ("first", 1), ("gap", None), ("bytes", 0)]:
    parser.add_argument(f"--{flag}", type=int, default=default)
arguments = parser.parse_args()
{"encode": encode, "replay": replay}[arguments.what](arguments)
