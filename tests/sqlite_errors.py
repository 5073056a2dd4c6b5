"""What sqlite says where a file cannot be opened, read or written now, which says nothing about its content."""

import sqlite3

UNAVAILABLE = [
    sqlite3.OperationalError(message)
    for message in (
        "database is locked",
        "database table is locked",
        "locking protocol",
        "disk I/O error",
        "unable to open database file",
        "attempt to write a readonly database",
        "database or disk is full",
        "out of memory",
        "large file support is disabled",
        "interrupted",
    )
]
