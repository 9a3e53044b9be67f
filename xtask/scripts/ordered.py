"""A writer whose every block says when it was written, and the check that what is left is a prefix (rules 1 and 9).

    ordered.py write URI STATE [--seconds S] [--waves N] [--rate R] [--fua-every N] [--marks DEVICE]
                                writes waves, R a second at most, until it is told to stop (SIGTERM) or a request fails
    ordered.py check URI STATE  reads everything and fails unless it is a prefix of what was written

A wave is DEPTH blocks in flight together; a wave begins when the one before it has completed. Every FLUSH_EVERY waves a
flush is sent and, when it completes, covers the waves that were complete when it was sent; the next wave is already in
flight by then. So after a crash the volume must be: all blocks of all waves before some wave P, any of wave P, and P is
not below the last wave that a completed flush covers. Every block holds its wave's number and its writer's run, all
over, so that a torn block is seen too. With --fua-every each Nth wave is written with FUA: complete, it is acknowledged
as if a flush covered it. With --marks what is acknowledged is told at once to a device of dm-log-writes, whose log then
says what a crash at any point of it must have left.
"""

import argparse
import errno
import fcntl
import json
import os
import signal
import struct
import sys
import time

import nbd

BLOCK = 4096
DEPTH = 16
GROUPS = 64
FLUSH_EVERY = 5
# Neighbours in time are not neighbours on the device.
STRIDE = 37 * BLOCK


def offset(slot):
    return slot * STRIDE


def content(wave, run):
    return struct.pack("<QQ", wave + 1, run + 1) * (BLOCK // 16)


def load(path):
    if os.path.exists(path):
        with open(path) as file:
            return json.load(file)
    # starts[run] is the first wave of that run.
    return {"starts": [], "acknowledged": -1, "submitted": -1, "left": -1}


def save(path, state):
    with open(path + ".new", "w") as file:
        json.dump(state, file)
    os.rename(path + ".new", path)


class Marks:
    """Marks in the log of a device of dm-log-writes, by the ioctl that `dmsetup message` makes; a process for each would
    take too long."""

    TARGET_MESSAGE = 0xC138FD0E  # _IOWR(0xfd, 14, struct dm_ioctl)
    HEADER = struct.Struct("=3I5iIIQ128s129s7x")

    def __init__(self, device):
        self.device = device and device.encode()
        self.control = device and open("/dev/mapper/control", "rb")

    def put(self, text):
        if not self.device:
            return
        message = b"mark %s\0" % text.encode()
        size = self.HEADER.size + 8 + len(message)
        header = self.HEADER.pack(4, 0, 0, size, self.HEADER.size, 0, 0, 0, 0, 0, 0, self.device, b"")
        fcntl.ioctl(self.control, self.TARGET_MESSAGE, bytearray(header + struct.pack("=Q", 0) + message))


def connect(uri):
    handle = nbd.NBD()
    handle.connect_uri(uri)
    return handle


def write(uri, path, seconds=0, waves=0, rate=0, fua_every=0, marks=None):
    state = load(path)
    marks = Marks(marks)
    run = len(state["starts"])
    # The last wave may be there in part: written again in full, the volume is a prefix again.
    wave = max(state["left"], 0)
    state["starts"].append(wave)
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
    handle = connect(uri)
    print("started", flush=True)
    begun = time.monotonic()
    end = begun + seconds if seconds else None
    flush, covers, failure = None, None, None

    def acknowledge(wave):
        if wave > state["acknowledged"]:
            state["acknowledged"] = wave
            marks.put(f"acknowledged={wave}")

    try:
        while not stop and (end is None or time.monotonic() < end) and (not waves or wave < waves):
            if rate:
                time.sleep(max(0, begun + (wave - state["starts"][-1]) / rate - time.monotonic()))
            base = (wave % GROUPS) * DEPTH
            state["submitted"] = max(state["submitted"], wave)
            # One buffer for the wave: it must outlive its requests.
            data = nbd.Buffer.from_bytearray(bytearray(content(wave, run)))
            fua = nbd.CMD_FLAG_FUA if fua_every and wave % fua_every == fua_every - 1 else 0
            cookies = {handle.aio_pwrite(data, offset(base + i), flags=fua) for i in range(DEPTH)}
            while cookies:
                handle.poll(-1)
                cookies = {cookie for cookie in cookies if not handle.aio_command_completed(cookie)}
                if flush is not None and handle.aio_command_completed(flush):
                    acknowledge(covers)
                    flush = None
            if fua:
                acknowledge(wave)
            if wave % FLUSH_EVERY == 0 and flush is None:
                flush, covers = handle.aio_flush(), wave
            wave += 1
        while flush is not None:
            handle.poll(-1)
            if handle.aio_command_completed(flush):
                acknowledge(covers)
                flush = None
    except nbd.Error as error:
        failure = error.errnum or "disconnected"
    state["failure"] = errno.errorcode.get(failure, failure) if isinstance(failure, int) else failure
    save(path, state)
    print(json.dumps({"failure": state["failure"], "acknowledged": state["acknowledged"],
                      "submitted": state["submitted"], "waves": wave - state["starts"][-1]}), flush=True)


def check(uri, path):
    state = load(path)
    handle = connect(uri)
    found = []
    for slot in range(GROUPS * DEPTH):
        block = bytes(handle.pread(BLOCK, offset(slot)))
        if block == bytes(BLOCK):
            found.append((-1, -1))
            continue
        wave, run = struct.unpack_from("<QQ", block)
        wave, run = wave - 1, run - 1
        if block != content(wave, run):
            sys.exit(f"slot {slot}: a block that nobody wrote, or a torn one: {block[:32].hex()}")
        if wave % GROUPS != slot // DEPTH:
            sys.exit(f"slot {slot}: holds wave {wave}, which does not write there")
        found.append((wave, run))
    last = max(wave for wave, _ in found)
    if last < state["acknowledged"]:
        sys.exit(f"LOST: wave {state['acknowledged']} was acknowledged by a flush, the last one left is {last}")
    if last > state["submitted"]:
        sys.exit(f"wave {last} was never submitted: the last was {state['submitted']}")
    for slot, (wave, run) in enumerate(found):
        group = slot // DEPTH
        expected = last - (last - group) % GROUPS
        allowed = {expected if expected >= 0 else -1}
        if expected == last:
            allowed.add(max(last - GROUPS, -1))
        if wave not in allowed:
            sys.exit(f"NO PREFIX: slot {slot} holds wave {wave}, but wave {last} is there: expected {sorted(allowed)}")
        if wave < 0:
            continue
        runs = [i for i, start in enumerate(state["starts"]) if start <= wave]
        newest = runs[-1]
        # A run's first wave repeats the last one left: until it is durable the block of an earlier run stands.
        repeated = {i for i in runs if state["starts"][i] == wave} | {newest}
        if wave == last:
            repeated |= {i - 1 for i in list(repeated)}
        if run not in repeated:
            sys.exit(f"slot {slot}, wave {wave}: written by run {run}, expected one of {sorted(repeated)}")
    state["left"] = last
    save(path, state)
    print(json.dumps({"left": last, "acknowledged": state["acknowledged"], "submitted": state["submitted"]}))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["write", "check"])
    parser.add_argument("uri")
    parser.add_argument("state")
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--waves", type=int, default=0)
    parser.add_argument("--rate", type=float, default=0)
    parser.add_argument("--fua-every", type=int, default=0)
    parser.add_argument("--marks", metavar="DEVICE")
    args = parser.parse_args()
    if args.what == "write":
        write(args.uri, args.state, args.seconds, args.waves, args.rate, args.fua_every, args.marks)
    else:
        check(args.uri, args.state)


main()
