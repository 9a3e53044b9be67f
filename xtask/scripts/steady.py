"""A steady load of writes, reads and flushes that lives through errors, and the check that nothing of it was lost.

    steady.py run URI STATE SAMPLES --seconds S [--mib-per-s R] [--area-mib A]
                        writes and reads R MiB a second each, in pieces of 64 KiB at random places, flushes each
                        second, tries again what fails, and appends a line of JSON to SAMPLES each second
    steady.py check URI STATE
                        reads everything and fails unless each piece is what was last written there

A write that fails is made again, with the same content, until it is answered, and nothing else is written to its place
meanwhile; so at the end each place has one content that it must have. Every read is checked: it must be what the place
held when the read was sent, or what was written to it since.
"""

import argparse
import json
import random
import struct
import sys
import time

import nbd

PIECE = 64 << 10
DEPTH = 8


def content(slot, version):
    return struct.pack("<QQ", slot, version) * (PIECE // 16)


def connect(uri):
    handle = nbd.NBD()
    handle.connect_uri(uri)
    return handle


class Load:
    def __init__(self, uri, slots):
        self.handle = connect(uri)
        self.slots = slots
        # What each place was last told to hold, and which places are being written.
        self.versions = [0] * slots
        self.written_once = []
        self.busy = set()
        self.version = 0
        self.writes, self.reads, self.again = {}, {}, []
        self.flush = None
        self.flushed_at = 0
        self.count = {}
        self.reset()

    def reset(self):
        done, self.count = self.count, {"written": 0, "read": 0, "flushes": 0, "write_errors": 0, "read_errors": 0,
                                        "flush_errors": 0}
        return done

    def write(self, slot, version):
        self.busy.add(slot)
        data = nbd.Buffer.from_bytearray(bytearray(content(slot, version)))
        cookie = self.handle.aio_pwrite(data, slot * PIECE)
        self.writes[cookie] = (slot, version, data)

    def write_next(self):
        if self.again:
            return self.write(*self.again.pop())
        slot = random.randrange(self.slots)
        while slot in self.busy:
            slot = random.randrange(self.slots)
        self.version += 1
        if not self.versions[slot]:
            self.written_once.append(slot)
        self.write(slot, self.version)

    def read_next(self):
        slot = random.choice(self.written_once)
        data = nbd.Buffer(PIECE)
        cookie = self.handle.aio_pread(data, slot * PIECE)
        self.reads[cookie] = (slot, self.versions[slot], data)

    def completed(self, cookie):
        """True: done; False: under way; an error's name: failed."""
        try:
            return self.handle.aio_command_completed(cookie)
        except nbd.Error as error:
            return error.errno or str(error)

    def reap(self):
        for cookie in list(self.writes):
            result = self.completed(cookie)
            if result is False:
                continue
            slot, version, _ = self.writes.pop(cookie)
            if result is True:
                self.versions[slot] = version
                self.busy.discard(slot)
                self.count["written"] += PIECE
            else:
                self.count["write_errors"] += 1
                self.again.append((slot, version))
        for cookie in list(self.reads):
            result = self.completed(cookie)
            if result is False:
                continue
            slot, before, data = self.reads.pop(cookie)
            if result is not True:
                self.count["read_errors"] += 1
                continue
            self.count["read"] += PIECE
            found = bytes(data.to_bytearray())
            held, version = struct.unpack_from("<QQ", found)
            if found == bytes(PIECE) and before == 0:
                continue
            if found != content(held, version) or held != slot or version < before or version > self.version:
                sys.exit(f"slot {slot}: version {version} of slot {held}, where at least {before} was expected")
        if self.flush is not None:
            result = self.completed(self.flush)
            if result is not False:
                self.flush = None
                self.count["flushes" if result is True else "flush_errors"] += 1

    def wait(self, seconds):
        self.handle.poll(max(1, int(seconds * 1000)))
        self.reap()


def run(uri, path, samples, seconds, rate, slots):
    load = Load(uri, slots)
    random.seed(1)
    begun = time.monotonic()
    per_second = rate * (1 << 20) / PIECE
    # What was not sent in time is not caught up with: a steady load, and no burst after each pause.
    write_at = read_at = begun
    sampled = begun
    with open(samples, "a") as file:
        print("started", flush=True)
        while (now := time.monotonic()) < begun + seconds:
            if now >= write_at and len(load.writes) < DEPTH:
                load.write_next()
                write_at = max(write_at + 1 / per_second, now - 0.1)
            if now >= read_at and len(load.reads) < DEPTH and load.written_once:
                load.read_next()
                read_at = max(read_at + 1 / per_second, now - 0.1)
            if load.flush is None and now >= load.flushed_at + 1:
                load.flush, load.flushed_at = load.handle.aio_flush(), now
            if now >= sampled + 1:
                count = load.reset()
                count.update(seconds=round(now - begun, 3), took=round(now - sampled, 3),
                             writes_waiting=len(load.writes), reads_waiting=len(load.reads))
                print(json.dumps(count), file=file, flush=True)
                sampled = now
            load.wait(0.002)
        while load.writes or load.again or load.reads or load.flush is not None:
            if load.again:
                load.write_next()
            load.wait(0.01)
        load.handle.flush()
    with open(path, "w") as file:
        json.dump(load.versions, file)
    print(json.dumps({"pieces": sum(1 for version in load.versions if version), "version": load.version}), flush=True)


def check(uri, path):
    with open(path) as file:
        versions = json.load(file)
    handle = connect(uri)
    wrong = []
    for slot, version in enumerate(versions):
        expected = content(slot, version) if version else bytes(PIECE)
        if bytes(handle.pread(PIECE, slot * PIECE)) != expected:
            wrong.append(slot)
    if wrong:
        sys.exit(f"LOST: {len(wrong)} of {len(versions)} pieces are not what was written last, such as {wrong[:5]}")
    print(json.dumps({"pieces": len(versions)}))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["run", "check"])
    parser.add_argument("uri")
    parser.add_argument("state")
    parser.add_argument("samples", nargs="?")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--mib-per-s", type=float, default=6)
    parser.add_argument("--area-mib", type=int, default=512)
    args = parser.parse_args()
    if args.what == "run":
        run(args.uri, args.state, args.samples, args.seconds, args.mib_per_s, (args.area_mib << 20) // PIECE)
    else:
        check(args.uri, args.state)


main()
