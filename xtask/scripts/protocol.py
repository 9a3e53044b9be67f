"""The protocol as libnbd speaks it, against a fresh volume of 1 TiB.

    protocol.py exercise URI MODEL   does everything, flushes, and leaves in MODEL what the first 32 MiB must be
    protocol.py verify URI MODEL     reads those 32 MiB again, after whatever happened to the daemon
"""

import errno
import random
import sys

import nbd

BLOCK = 4096
MIB = 1 << 20
SIZE = 1 << 40
MODEL_BYTES = 32 * MIB


def connect(uri):
    handle = nbd.NBD()
    handle.add_meta_context("base:allocation")
    handle.connect_uri(uri)
    # Requests that the server must refuse have to reach it.
    handle.set_strict_mode(0)
    return handle


def same(what, found, expected):
    if found != expected:
        raise SystemExit(f"{what}: {found!r:.200} instead of {expected!r:.200}")


def extents(handle, length, start, flags=0):
    found = []

    def extent(context, at, entries, error):
        if context == "base:allocation":
            for i in range(0, len(entries), 2):
                found.append((at, entries[i], entries[i + 1]))
                at += entries[i]

    handle.block_status(length, start, extent, flags)
    return found


def all_extents(handle, length, start):
    end, found = start + length, []
    while start < end:
        part = extents(handle, min(end - start, 0xFFFFF000), start)
        if not part:
            raise SystemExit(f"block status at {start} says nothing")
        found += part
        start = part[-1][0] + part[-1][1]
    return found


def fails(what, expected, call):
    try:
        call()
    except nbd.Error as error:
        code = error.errnum
        if code not in expected:
            names = [errno.errorcode[number] for number in expected]
            raise SystemExit(f"{what}: {errno.errorcode.get(code, code)} instead of {names}") from error
        return
    raise SystemExit(f"{what}: was not refused")


def flags_and_sizes(handle):
    same("size", handle.get_size(), SIZE)
    for question in ["can_flush", "can_fua", "can_trim", "can_zero", "can_multi_conn", "can_df", "can_cache"]:
        same(question, getattr(handle, question)(), True)
    same("read only", handle.is_read_only(), False)
    same("structured replies", handle.get_structured_replies_negotiated(), True)
    same("base:allocation", handle.can_meta_context("base:allocation"), True)
    same("smallest block", handle.get_block_size(nbd.SIZE_MINIMUM), 1)
    same("preferred block", handle.get_block_size(nbd.SIZE_PREFERRED), BLOCK)


def fresh_is_empty(handle):
    for at in [0, SIZE // 2 + 1, SIZE - 100]:
        same(f"fresh bytes at {at}", bytes(handle.pread(100, at)), bytes(100))
    found = all_extents(handle, SIZE, 0)
    same("a fresh volume's extents", sum(length for _, length, _ in found), SIZE)
    same("all holes", {flags for _, _, flags in found}, {nbd.STATE_HOLE | nbd.STATE_ZERO})


def unaligned(handle):
    at = SIZE // 2 + 4000
    handle.pwrite(b"x" * 200, at)
    around = bytes(handle.pread(8192, SIZE // 2))
    same("an unaligned write", around, bytes(4000) + b"x" * 200 + bytes(8192 - 4200))
    handle.pwrite(b"y", at + 100, nbd.CMD_FLAG_FUA)
    same("one byte with FUA", bytes(handle.pread(3, at + 99)), b"xyx")
    handle.zero(10, at + 95)
    same("zeroes to the byte", bytes(handle.pread(20, at + 90)), b"x" * 5 + bytes(10) + b"x" * 5)
    handle.trim(4096, at)
    same("a trim that holds no whole block", bytes(handle.pread(5, at)), b"x" * 5)
    handle.pwrite(b"z" * 300, SIZE - 300)
    same("the device's last bytes", bytes(handle.pread(301, SIZE - 301)), b"\0" + b"z" * 300)


def holes(handle):
    at = 1 << 30
    handle.pwrite(b"a" * 8 * BLOCK, at)
    handle.trim(2 * BLOCK, at + 2 * BLOCK, nbd.CMD_FLAG_FUA)
    handle.zero(2 * BLOCK, at + 5 * BLOCK, nbd.CMD_FLAG_FUA)
    expected = b"a" * 2 * BLOCK + bytes(2 * BLOCK) + b"a" * BLOCK + bytes(2 * BLOCK) + b"a" * BLOCK
    same("trimmed and zeroed", bytes(handle.pread(8 * BLOCK, at)), expected)
    pieces = []

    def chunk(data, offset, status, error):
        pieces.append((offset - at, len(data), status))

    handle.pread_structured(8 * BLOCK, at, chunk)
    reported = sorted((offset, status) for offset, _, status in pieces if status == nbd.READ_HOLE)
    same("holes of a structured read", (2 * BLOCK, nbd.READ_HOLE) in reported, True)
    pieces.clear()
    handle.pread_structured(8 * BLOCK, at, chunk, nbd.CMD_FLAG_DF)
    same("a read that may not be split", [(offset, length) for offset, length, _ in pieces], [(0, 8 * BLOCK)])
    status = {offset - at: flags for offset, _, flags in extents(handle, 8 * BLOCK, at)}
    same("status of what was trimmed", status.get(2 * BLOCK, 0) & nbd.STATE_ZERO, nbd.STATE_ZERO)
    same("status of data", status.get(0), 0)
    one = extents(handle, 8 * BLOCK, at, nbd.CMD_FLAG_REQ_ONE)
    same("one extent when one was asked for", (len(one), one[0][1]), (1, 2 * BLOCK))
    handle.zero(BLOCK, at, nbd.CMD_FLAG_NO_HOLE)
    same("zeroes without a hole", bytes(handle.pread(BLOCK, at)), bytes(BLOCK))
    if handle.can_fast_zero():
        try:
            handle.zero(BLOCK, at, nbd.CMD_FLAG_FAST_ZERO)
        except nbd.Error as error:
            same("a fast zero that is none", error.errnum, errno.ENOTSUP)
    handle.cache(8 * BLOCK, at)


def refused(handle):
    invalid = {errno.EINVAL}
    fails("a read past the end", invalid, lambda: handle.pread(2, SIZE - 1))
    fails("a write past the end", {errno.ENOSPC, errno.EINVAL}, lambda: handle.pwrite(b"ab", SIZE - 1))
    fails("a trim past the end", {errno.ENOSPC, errno.EINVAL}, lambda: handle.trim(2, SIZE - 1))
    fails("zeroes past the end", {errno.ENOSPC, errno.EINVAL}, lambda: handle.zero(2, SIZE - 1))
    fails("a write at the end of numbers", {errno.ENOSPC, errno.EINVAL},
          lambda: handle.pwrite(b"ab", (1 << 64) - 1))
    fails("status past the end", invalid, lambda: extents(handle, BLOCK, SIZE))
    same("still in step", bytes(handle.pread(3, SIZE - 3)), b"zzz")


def large(handle):
    most = handle.get_block_size(nbd.SIZE_MAXIMUM) or 32 * MIB
    length = min(most, 32 * MIB)
    data = random.Random(7).randbytes(length)
    handle.pwrite(data, (1 << 31) + 511)
    same("a request of 32 MiB", bytes(handle.pread(length, (1 << 31) + 511)) == data, True)


def whole_device(handle):
    handle.trim(0xFFFFFFFF, 1)
    step = 0xFFFFF000
    for at in range(0, SIZE, step):
        handle.trim(min(step, SIZE - at), at)
    found = all_extents(handle, SIZE, 0)
    same("after a trim of everything", {flags for _, _, flags in found}, {nbd.STATE_HOLE | nbd.STATE_ZERO})
    for at in [1 << 30, SIZE // 2 + 4000, SIZE - 300]:
        same(f"bytes at {at} after a trim of everything", bytes(handle.pread(100, at)), bytes(100))


def against_a_model(handle):
    """Random requests, sixteen in flight where they do not meet, against an array."""
    model = bytearray(MODEL_BYTES)
    chance = random.Random(11)
    for _ in range(120):
        # Buffers must outlive their requests.
        busy, waiting, buffers = [], [], []
        for _ in range(16):
            length = chance.choice([1, 511, BLOCK, 3 * BLOCK, 5000, 64 << 10])
            at = chance.randrange(0, MODEL_BYTES - length)
            if chance.random() < 0.5:
                at -= at % BLOCK
            # Blocks that two requests share are merged too, so only the bytes must not meet.
            if any(at < end and start < at + length for start, end in busy):
                continue
            busy.append((at, at + length))
            kind = chance.random()
            if kind < 0.5:
                data = chance.randbytes(length)
                written = nbd.Buffer.from_bytearray(bytearray(data))
                buffers.append(written)
                waiting.append((handle.aio_pwrite(written, at), None, None))
                model[at:at + length] = data
            elif kind < 0.6:
                waiting.append((handle.aio_zero(length, at), None, None))
                model[at:at + length] = bytes(length)
            elif kind < 0.7:
                first, last = -(-at // BLOCK) * BLOCK, (at + length) // BLOCK * BLOCK
                waiting.append((handle.aio_trim(length, at), None, None))
                if first < last:
                    model[first:last] = bytes(last - first)
            else:
                buffer = nbd.Buffer(length)
                waiting.append((handle.aio_pread(buffer, at), buffer, (at, bytes(model[at:at + length]))))
        for cookie, buffer, expected in waiting:
            while not handle.aio_command_completed(cookie):
                handle.poll(-1)
            if buffer is not None:
                same(f"bytes at {expected[0]}", bytes(buffer.to_bytearray()) == expected[1], True)
    verify(handle, model)
    for at, length, flags in all_extents(handle, MODEL_BYTES, 0):
        if flags & nbd.STATE_ZERO:
            same(f"zeroes said at {at}", any(model[at:at + length]), False)
    handle.flush()
    return model


def verify(handle, model):
    for at in range(0, MODEL_BYTES, MIB):
        same(f"the MiB at {at}", bytes(handle.pread(MIB, at)) == bytes(model[at:at + MIB]), True)


def main():
    what, uri, path = sys.argv[1:]
    handle = connect(uri)
    if what == "verify":
        with open(path, "rb") as file:
            verify(handle, file.read())
        return
    for part in [flags_and_sizes, fresh_is_empty, unaligned, holes, refused, large, whole_device]:
        part(handle)
        print(part.__name__, "ok", flush=True)
    model = against_a_model(handle)
    with open(path, "wb") as file:
        file.write(model)
    handle.shutdown()


main()
