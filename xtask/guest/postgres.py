"""Guest: rows that PostgreSQL acknowledged as committed before they were told of, and the check that they are all there.

    postgres.py write PSQL STATE    inserts rows, each a transaction, and tells of each in STATE, until the power is cut
    postgres.py check PSQL STATE    fails unless every row that STATE tells of is there, with none missing between

STATE is outside of the disk under test.
"""

import json
import os
import subprocess
import sys


def psql(program, *arguments):
    command = ["runuser", "-u", "postgres", "--", program, "-h", "/run/pg", "-qAtX", *arguments, "postgres"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def write(program, state):
    told = os.open(state, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    session = psql(program)
    count = 0
    while True:
        session.stdin.write(f"INSERT INTO kept VALUES ({count}, repeat('x', {count % 3000})) RETURNING n;\n")
        session.stdin.flush()
        # psql prints the row when the transaction is over: a statement of its own is one.
        if session.stdout.readline().strip() != str(count):
            sys.exit(f"row {count} was not acknowledged")
        count += 1
        os.pwrite(told, json.dumps({"count": count}).ljust(80).encode(), 0)


def check(program, state):
    with open(state) as file:
        count = json.load(file)["count"]
    question = "SELECT count(*), coalesce(max(n), -1) FROM kept WHERE length(filler) = n % 3000"
    answer, _ = psql(program, "-c", question).communicate()
    rows, last = (int(number) for number in answer.strip().split("|"))
    if rows != last + 1 or rows < count:
        sys.exit(f"LOST: {count} rows were acknowledged, {rows} are there, the last is number {last}")
    print(f"{count} rows were acknowledged, {rows} are there")


if __name__ == "__main__":
    {"write": write, "check": check}[sys.argv[1]](sys.argv[2], sys.argv[3])
