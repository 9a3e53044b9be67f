"""Clients that lie, hang and vanish, over a unix socket: the server must go on serving others.

    hostile.py SOCKET EXPORT
"""

import random
import socket
import struct
import sys
import time

OPTION = 0x49484156454F5054
REQUEST = 0x25609513
GO = 7


def connect(path):
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(10)
    peer.connect(path)
    return peer


def receive(peer, count):
    data = b""
    while len(data) < count:
        part = peer.recv(count - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def greeted(path):
    peer = connect(path)
    receive(peer, 18)
    peer.sendall(struct.pack(">I", 3))
    return peer


def option(peer, number, payload, length=None):
    peer.sendall(struct.pack(">QII", OPTION, number, len(payload) if length is None else length) + payload)


def transmitting(path, name):
    peer = greeted(path)
    option(peer, GO, struct.pack(">I", len(name)) + name + struct.pack(">H", 0))
    while True:
        _, _, kind, length = struct.unpack(">QIII", receive(peer, 20))
        receive(peer, length)
        if kind == 1:
            return peer
        if kind & 0x80000000:
            raise SystemExit(f"the server refused GO: {kind:x}")


def request(kind, flags, offset, length, payload=b"", magic=REQUEST):
    return struct.pack(">IHHQQI", magic, flags, kind, 7, offset, length) + payload


def ends(peer, what):
    """The server must close, or answer with an error; it must not hang and must not send without end."""
    received = 0
    end = time.monotonic() + 10
    try:
        while received < 1 << 20 and time.monotonic() < end:
            part = peer.recv(65536)
            if not part:
                return
            received += len(part)
    except (TimeoutError, ConnectionError):
        pass
    if received >= 1 << 20:
        raise SystemExit(f"{what}: the server talks without end")


def main():
    path, name = sys.argv[1], sys.argv[2].encode()
    chance = random.Random(3)
    keep = []

    # Half a handshake that stays open while everything else happens.
    keep.append(connect(path))
    keep.append(greeted(path))

    for _ in range(20):
        peer = connect(path)
        receive(peer, 18)
        peer.sendall(chance.randbytes(chance.randrange(1, 2000)))
        peer.close()

    peer = greeted(path)
    option(peer, GO, b"", length=0xFFFFFFFF)
    peer.shutdown(socket.SHUT_WR)
    ends(peer, "an option of 4 GiB")

    peer = greeted(path)
    option(peer, GO, struct.pack(">I", 0xFFFFFFFF) + b"x")
    peer.shutdown(socket.SHUT_WR)
    ends(peer, "a name longer than its option")

    peer = greeted(path)
    try:
        # A server may lose its patience and close.
        for number in range(200, 260):
            option(peer, number, b"?")
        peer.shutdown(socket.SHUT_WR)
    except ConnectionError:
        pass
    ends(peer, "unknown options")

    peer = transmitting(path, name)
    peer.sendall(request(0, 0, 0, 4096, magic=0x12345678))
    peer.shutdown(socket.SHUT_WR)
    ends(peer, "a request with another magic")

    peer = transmitting(path, name)
    peer.sendall(request(1, 0, 0, 0xFFFFFFFF, b"only this much"))
    peer.shutdown(socket.SHUT_WR)
    ends(peer, "a write of 4 GiB that does not come")

    peer = transmitting(path, name)
    peer.sendall(request(0, 0, 0, 0xFFFFFFFF))
    peer.settimeout(10)
    _, error, _ = struct.unpack(">IIQ", receive(peer, 16))
    if error == 0:
        raise SystemExit("a read of 4 GiB was promised")
    # The refusal did not lose the stream's step.
    peer.sendall(request(0, 0, 0, 16))
    magic, error, cookie = struct.unpack(">IIQ", receive(peer, 16))
    if (magic, error, cookie) != (0x67446698, 0, 7):
        raise SystemExit(f"out of step after a refused read: {magic:x} {error} {cookie}")
    receive(peer, 16)
    # A request that nobody knows, and one with flags that nobody knows, are answered with errors.
    for kind, flags in [(77, 0), (0, 0x8000)]:
        peer.sendall(request(kind, flags, 0, 16))
        magic, error, cookie = struct.unpack(">IIQ", receive(peer, 16))
        if (magic, cookie) != (0x67446698, 7) or error == 0:
            raise SystemExit(f"request {kind} with flags {flags:x}: {magic:x} {error}")
    peer.close()

    # Vanish in the middle of a write, and with many answers not taken.
    for _ in range(10):
        peer = transmitting(path, name)
        peer.sendall(request(1, 0, 4096, 1 << 20, bytes(100000)))
        peer.close()
    for _ in range(10):
        peer = transmitting(path, name)
        peer.sendall(request(0, 0, 0, 1 << 20) * 32)
        peer.close()

    # Does not take its answers: the server's memory must not grow with them, and others are served meanwhile.
    peer = transmitting(path, name)
    peer.setblocking(False)
    try:
        for _ in range(2000):
            peer.send(request(0, 0, 0, 32 << 20))
    except (BlockingIOError, ConnectionError):
        pass
    keep.append(peer)

    peer = transmitting(path, name)
    peer.sendall(request(0, 0, 0, 16))
    receive(peer, 32)
    peer.sendall(request(2, 0, 0, 0))
    ends(peer, "a client that says goodbye")


main()
