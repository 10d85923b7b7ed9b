"""The tables of a store of labels, and how its file is opened."""

import os
import secrets
import sqlite3
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path

_APPLICATION = int.from_bytes(b"skal", "big")
_VERSION = 1
_TABLES = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
-- What is known of each item now; `events` says how it came to that.
CREATE TABLE items (
    number INTEGER PRIMARY KEY,
    item TEXT NOT NULL,
    content TEXT NOT NULL,
    stamp TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX item_names ON items (item) WHERE state != 'gone';
CREATE TABLE events (
    number INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    item INTEGER REFERENCES items,
    label TEXT,
    annotator TEXT NOT NULL DEFAULT '',
    time REAL NOT NULL,
    seconds REAL,
    round INTEGER,
    strategy TEXT,
    target INTEGER REFERENCES events
);
CREATE UNIQUE INDEX undone ON events (target) WHERE target IS NOT NULL;
CREATE INDEX events_of_kind ON events (kind, item, number);
CREATE INDEX events_of_item ON events (item, kind, annotator);
CREATE TRIGGER never_changed BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'events are never changed'); END;
CREATE TRIGGER never_removed BEFORE DELETE ON events
BEGIN SELECT RAISE(ABORT, 'events are never removed'); END;
"""


class _Connection(sqlite3.Connection):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.process = os.getpid()

    def __del__(self):
        if self.process == os.getpid():
            self.close()


class Database:
    """One SQLite file, safe for several threads and processes.

    Parameters
    ----------
    path : path-like
        Made where it is absent; its folder must exist.

    Raises
    ------
    ValueError
        Where the file is no store of labels, or of a later version.
    """

    def __init__(self, path):
        self.path = Path(path)
        self._local = threading.local()
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            if "locked" in str(error) or not self.path.exists():
                raise
            raise self._foreign(f"{error}") from error

    def _foreign(self, reason):
        return ValueError(
            f"{str(self.path)!r} is no store of labels ({reason}); name another file."
        )

    def _prepare(self):
        kind, version = self._kind()
        if kind != _APPLICATION:
            with self.writing() as connection:
                if self._kind()[0] != _APPLICATION:
                    # Only a new file is changed, never a database of something else.
                    if connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                        raise self._foreign("it holds other tables")
                    self._create()
        elif version > _VERSION:
            raise self._foreign(
                f"its version is {version}, this skal reads up to {_VERSION}: update it"
            )
        self._log_ahead()

    def _log_ahead(self):
        """Let readers go on beside a writer, once and for all who open the file."""
        for _ in range(1000):  # SQLite does not wait here by itself.
            try:
                self.connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error):
                    raise
                time.sleep(0.01)
        raise TimeoutError(f"{str(self.path)!r} is held by another process.")

    def _kind(self):
        pragmas = ("application_id", "user_version")
        return [self.connection.execute(f"PRAGMA {p}").fetchone()[0] for p in pragmas]

    def _create(self):
        statement = ""
        for line in _TABLES.splitlines(keepends=True):
            statement += line
            if sqlite3.complete_statement(statement):
                self.connection.execute(statement)
                statement = ""
        self.connection.execute(
            "INSERT INTO about VALUES ('project', ?)", [secrets.token_hex(6)]
        )
        self.connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        self.connection.execute(f"PRAGMA user_version = {_VERSION}")

    @property
    def connection(self):
        """The connection of this thread of this process."""
        known = self._local.__dict__.get("connection")
        if known is None or known.process != os.getpid():
            # After a fork the other process's must be neither used nor closed.
            self._local.inherited = known
            known = sqlite3.connect(
                self.path,
                timeout=60,
                isolation_level=None,
                check_same_thread=False,  # a thread's may be closed by another's gc
                factory=_Connection,
            )
            known.row_factory = sqlite3.Row
            known.execute("PRAGMA foreign_keys = ON")
            # What is confirmed outlives a power cut, not only the process.
            known.execute("PRAGMA synchronous = FULL")
            self._local.connection = known
        return known

    @contextmanager
    def writing(self):
        """Hold the one right to write: all that is done inside, or nothing.

        Yields
        ------
        connection : sqlite3.Connection
        """
        connection = self.connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def read(self, query, *values):
        """Run a query.

        Parameters
        ----------
        query : str
        *values : object
            For its question marks.

        Returns
        -------
        rows : list of sqlite3.Row
        """
        with closing(self.connection.execute(query, values)) as cursor:
            return cursor.fetchall()

    def close(self):
        """Close the connection of this thread; it is opened again when needed."""
        known = self._local.__dict__.pop("connection", None)
        if known is not None and known.process == os.getpid():
            known.close()
