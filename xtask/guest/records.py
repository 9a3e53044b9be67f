"""Guest: files whose every record was acknowledged by fsync before it was told of, and the check that they are all there.

    records.py write DIR STATE [--until FILE]   appends records and syncs each, until FILE is there or somebody ends it
    records.py check DIR STATE [DIR STATE]...   fails unless every record that STATE tells of is there, as it was written

STATE is outside of the disk under test, and says the run's seed, so that files of an earlier run can not pass for these.
"""

import argparse
import json
import os
import random
import sys
import time

RECORDS_IN_A_FILE = 50
LENGTHS = [300, 4096, 9000, 60000]


def record(seed, number):
    chance = random.Random(seed * 1_000_003 + number)
    return b"%016x %012d" % (seed, number) + chance.randbytes(chance.choice(LENGTHS))


def path(directory, number):
    return os.path.join(directory, f"records.{number // RECORDS_IN_A_FILE:06}")


def tell(file, seed, count, slowest):
    text = json.dumps({"seed": seed, "count": count, "slowest": round(slowest, 2)})
    # Longer texts only follow shorter ones, and one write is seen whole.
    os.pwrite(file, text.ljust(80).encode(), 0)


def write(directory, state, until):
    seed = random.SystemRandom().getrandbits(60)
    os.mkdir(directory)
    parent = os.open(os.path.dirname(directory), os.O_RDONLY)
    os.fsync(parent)
    told = os.open(state, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    count, slowest = 0, 0.0
    names = os.open(directory, os.O_RDONLY)
    while not (until and os.path.exists(until)):
        begun = time.monotonic()
        with open(path(directory, count), "wb" if count % RECORDS_IN_A_FILE == 0 else "ab") as file:
            file.write(record(seed, count))
            file.flush()
            os.fsync(file.fileno())
        if count % RECORDS_IN_A_FILE == 0:
            os.fsync(names)
        count += 1
        slowest = max(slowest, time.monotonic() - begun)
        tell(told, seed, count, slowest)
    print(f"wrote {count} records, the slowest in {slowest:.1f} s")


def check(directory, state):
    with open(state) as file:
        told = json.load(file)
    seed, lost, content, offset = told["seed"], 0, b"", 0
    for number in range(told["count"]):
        if number % RECORDS_IN_A_FILE == 0:
            try:
                with open(path(directory, number), "rb") as file:
                    content, offset = file.read(), 0
            except OSError as error:
                print(error)
                content, offset = b"", 0
        expected = record(seed, number)
        lost += content[offset:offset + len(expected)] != expected
        offset += len(expected)
    print(f"{told['count']} records were acknowledged, {lost} are lost or changed")
    if lost or not told["count"]:
        sys.exit(f"LOST: {lost} of {told['count']} records in {directory}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["write", "check"])
    parser.add_argument("places", nargs="+")
    parser.add_argument("--until")
    args = parser.parse_args()
    if args.what == "write":
        write(*args.places, args.until)
    else:
        for directory, state in zip(args.places[::2], args.places[1::2]):
            check(directory, state)


main()
