"""Transactions of one row each that SQLite commits in some seconds, printed as a number a second.

    sqlite_rate.py DATABASE JOURNAL SECONDS   JOURNAL is wal or delete

As durable as in sqlite.py: a commit is on the disk when it returns.
"""

import sqlite3
import sys
import time


def main():
    path, journal, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    database = sqlite3.connect(path, isolation_level=None)
    database.execute(f"PRAGMA journal_mode={journal}")
    database.execute("PRAGMA synchronous=EXTRA")
    database.execute("CREATE TABLE rows (n INTEGER PRIMARY KEY, x TEXT)")
    begun, number = time.monotonic(), 0
    while (took := time.monotonic() - begun) < seconds:
        number += 1
        database.execute("INSERT INTO rows VALUES (?, ?)", (number, f"row {number};" * 20))
    database.close()
    print(number / took)


main()
