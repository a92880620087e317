#!/usr/bin/env python3
"""A database whose state follows from the number of its last transaction.

    sqlite_writer.py make DB COUNT         makes it with COUNT transactions
    sqlite_writer.py write DB LOG MODE     goes on until the filesystem is gone; LOG gets each number after its commit
    sqlite_writer.py check DB LOG          says what is wrong; LOG is empty afterwards
"""

import hashlib
import os
import random
import sqlite3
import sys

ROWS = 400


def data(row, number):
    block = hashlib.sha256(b"%d %d" % (row, number)).digest()
    return block * random.Random(row * number).randrange(1, 60)


def changes(number):
    """What transaction `number` does: pairs of a row and whether it is written or deleted."""
    rng = random.Random(number)
    return [(rng.randrange(ROWS), rng.random() < 0.8) for _ in range(rng.randrange(1, 20))]


def connect(path, mode):
    # Transactions are begun by hand.
    database = sqlite3.connect(path, isolation_level=None, timeout=5)
    found = database.execute(f"PRAGMA journal_mode={mode}").fetchone()[0]
    assert found == mode, found
    database.execute("PRAGMA synchronous=FULL")
    database.execute("PRAGMA wal_autocheckpoint=50")
    database.execute("CREATE TABLE IF NOT EXISTS rows (row INTEGER PRIMARY KEY, number INTEGER, data BLOB)")
    database.execute("CREATE TABLE IF NOT EXISTS done (number INTEGER PRIMARY KEY)")
    return database


def last(database):
    return database.execute("SELECT coalesce(max(number), 0) FROM done").fetchone()[0]


def transaction(database, number):
    database.execute("BEGIN IMMEDIATE")
    for row, written in changes(number):
        if written:
            database.execute("REPLACE INTO rows VALUES (?, ?, ?)", (row, number, data(row, number)))
        else:
            database.execute("DELETE FROM rows WHERE row = ?", (row,))
    database.execute("INSERT INTO done VALUES (?)", (number,))
    database.execute("COMMIT")


def is_gone(path):
    try:
        os.statvfs(os.path.dirname(path))
    except OSError:
        return True
    return False


def write(path, log, mode):
    log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        database = connect(path, mode)
        number = last(database)
        while True:
            number += 1
            transaction(database, number)
            os.write(log, b"%d\n" % number)
    except (sqlite3.Error, OSError) as error:
        if not is_gone(path):
            sys.exit(f"the filesystem is there, but: {error!r}")


def check(path, log):
    logged = [int(line) for line in open(log).read().split()] if os.path.exists(log) else []
    database = sqlite3.connect(path)
    integrity = database.execute("PRAGMA integrity_check").fetchall()
    assert integrity == [("ok",)], integrity
    numbers = [number for (number,) in database.execute("SELECT number FROM done ORDER BY number")]
    assert numbers == list(range(1, len(numbers) + 1)), "transactions are missing in between"
    assert not logged or logged[-1] <= len(numbers) <= logged[-1] + 1, (
        f"transaction {logged[-1]} was committed, {len(numbers)} is the last that is there")
    expected = {}
    for number in numbers:
        for row, written in changes(number):
            expected.pop(row, None)
            if written:
                expected[row] = number
    found = {row: (number, content) for row, number, content in database.execute("SELECT * FROM rows")}
    assert {row: number for row, (number, _) in found.items()} == expected, "other rows than were committed"
    for row, (number, content) in found.items():
        assert content == data(row, number), f"row {row} has other bytes"
    if os.path.exists(log):
        os.truncate(log, 0)
    print(len(logged))


def main():
    command, path = sys.argv[1:3]
    if command == "make":
        database = connect(path, "delete")
        for number in range(1, int(sys.argv[3]) + 1):
            transaction(database, number)
    elif command == "write":
        write(path, *sys.argv[3:])
    else:
        check(path, sys.argv[3])


if __name__ == "__main__":
    main()
