"""Writes rows to a SQLite database one transaction each, and checks that every committed one is there.

    sqlite.py write DATABASE JOURNAL ACKED   JOURNAL is wal or delete; ACKED, elsewhere, gets the number of each committed row
    sqlite.py check DATABASE JOURNAL ACKED   fails unless all of them are there and the database is sound

Ends when a statement fails: its disk has died. Rows go on where the last run ended.
"""

import os
import sqlite3
import sys


def connect(path, journal):
    database = sqlite3.connect(path, isolation_level=None)
    database.execute(f"PRAGMA journal_mode={journal}")
    # EXTRA syncs the directory after a rollback journal is removed: a commit is durable when it returns.
    database.execute("PRAGMA synchronous=EXTRA")
    return database


def content(number):
    return f"row {number};" * (1 + number % 90)


def write(path, journal, acked):
    database = connect(path, journal)
    database.execute("CREATE TABLE IF NOT EXISTS rows (n INTEGER PRIMARY KEY, x TEXT)")
    number = database.execute("SELECT coalesce(max(n), 0) FROM rows").fetchone()[0]
    with open(acked, "a") as log:
        while True:
            number += 1
            database.execute("BEGIN IMMEDIATE")
            database.execute("INSERT INTO rows VALUES (?, ?)", (number, content(number)))
            database.execute("COMMIT")
            log.write(f"{number}\n")
            log.flush()


def check(path, journal, acked):
    database = connect(path, journal)
    sound = database.execute("PRAGMA integrity_check").fetchall()
    if sound != [("ok",)]:
        sys.exit(f"the database is damaged: {sound[:5]}")
    rows = dict(database.execute("SELECT n, x FROM rows"))
    with open(acked) as log:
        numbers = {int(line) for line in log if line.endswith("\n")}
    lost = sorted(number for number in numbers if rows.get(number) != content(number))
    if lost:
        sys.exit(f"LOST: {len(lost)} of {len(numbers)} committed rows, the first is {lost[0]}")
    if not numbers:
        sys.exit("no row was ever committed: nothing was shown")
    database.close()
    print(f"{len(numbers)} rows committed, none lost")


def main():
    what, path, journal, acked = sys.argv[1:]
    if what == "check":
        return check(path, journal, acked)
    try:
        write(path, journal, acked)
    except (sqlite3.Error, OSError) as error:
        # No clean-up: a handle that is closed would touch the dead disk.
        print(error, flush=True)
        os._exit(1)


main()
