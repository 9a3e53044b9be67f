#!/usr/bin/env python3
"""Requests to volumes that are too large to be filled.

    large.py sprinkle URI WRITES --seed S [--last BYTES]   # blocks at random over all of it, or its last BYTES, and a flush
    large.py check URI READS --seed S [--last BYTES]       # reads the first READS of them back and compares
    large.py discard URI                                   # all of it, by the longest TRIMs that the protocol has

Each prints what it did, and how long it took. A block says its own address and the seed.
"""
import argparse, random, time

import nbd

BLOCK, IN_FLIGHT = 4096, 64
LONGEST = (1 << 32) - BLOCK


def blocks(handle, args):
    chance, size = random.Random(args.seed), handle.get_size()
    least = size - args.last if args.last else 0
    for _ in range(args.count):
        yield chance.randrange(least // BLOCK, size // BLOCK) * BLOCK


def content(args, offset):
    return bytearray(args.seed.to_bytes(8, "little") + offset.to_bytes(8, "little")) * (BLOCK // 16)


def wait(handle, cookies, most):
    """Until no more than `most` are in flight."""
    while len(cookies) > most:
        for cookie in [cookie for cookie in cookies if handle.aio_command_completed(cookie)]:
            cookies.remove(cookie)
        if len(cookies) > most:
            handle.poll(-1)


def sprinkle(handle, args):
    cookies = []
    for offset in blocks(handle, args):
        wait(handle, cookies, IN_FLIGHT - 1)
        cookies.append(handle.aio_pwrite(nbd.Buffer.from_bytearray(content(args, offset)), offset))
    wait(handle, cookies, 0)
    handle.flush()
    return args.count


def check(handle, args):
    for offset in blocks(handle, args):
        assert handle.pread(BLOCK, offset) == bytes(content(args, offset)), f"LOST: the block at {offset}"
    return args.count


def discard(handle, args):
    cookies, size, requests = [], handle.get_size(), 0
    for offset in range(0, size, LONGEST):
        wait(handle, cookies, IN_FLIGHT - 1)
        cookies.append(handle.aio_trim(min(LONGEST, size - offset), offset))
        requests += 1
    wait(handle, cookies, 0)
    handle.flush()
    return requests


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
kinds = parser.add_subparsers(required=True)
for kind in [sprinkle, check, discard]:
    sub = kinds.add_parser(kind.__name__)
    sub.set_defaults(kind=kind)
    sub.add_argument("uri")
    if kind is not discard:
        sub.add_argument("count", type=int)
        sub.add_argument("--seed", type=int, default=1)
        sub.add_argument("--last", type=int, default=0)
args = parser.parse_args()
handle = nbd.NBD()
handle.connect_uri(args.uri)
began = time.monotonic()
done = args.kind(handle, args)
print(f"{args.kind.__name__}: {done} requests, {time.monotonic() - began:.2f} s")
