"""The tables of a store of labels, and how its file is opened."""

import os
import secrets
import sqlite3
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path

_APPLICATION = int.from_bytes(b"skal", "big")
_VERSION = 2
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
# Since version 2: what the events come to, kept up by triggers, so that what waits is
# found as fast after many answers.
_ANSWERS = """
    n_answers = (SELECT count(*) FROM held WHERE item = items.number),
    majority = (
        SELECT CASE count(*) WHEN 1 THEN max(label) END FROM (
            SELECT label, rank() OVER (ORDER BY count(*) DESC) AS place FROM held
            WHERE item = items.number AND label IS NOT NULL GROUP BY label)
        WHERE place = 1)
"""
_DERIVED = f"""
ALTER TABLE items ADD COLUMN chosen INTEGER;  -- the event, unless it was withdrawn
ALTER TABLE items ADD COLUMN n_answers INTEGER NOT NULL DEFAULT 0;
ALTER TABLE items ADD COLUMN majority TEXT;  -- the label of most
CREATE INDEX majorities ON items (majority) WHERE n_answers > 0 AND state = '';
CREATE INDEX waiting ON items (n_answers, chosen) WHERE chosen IS NOT NULL;
-- The last answer of each annotator that was not taken back.
CREATE TABLE held (
    item INTEGER REFERENCES items,
    annotator TEXT,
    number INTEGER NOT NULL REFERENCES events,
    label TEXT,
    PRIMARY KEY (item, annotator)
) WITHOUT ROWID;
CREATE UNIQUE INDEX last_held ON held (number);
INSERT INTO held
SELECT item, annotator, max(number), label FROM events AS answer
WHERE kind IN ('label', 'skip')
AND NOT EXISTS (SELECT 1 FROM events WHERE target = answer.number)
GROUP BY item, annotator;
UPDATE items SET {_ANSWERS},
    chosen = (
        SELECT CASE kind WHEN 'choose' THEN number END FROM events
        WHERE item = items.number AND kind IN ('choose', 'withdraw')
        ORDER BY number DESC LIMIT 1);
CREATE TRIGGER choose AFTER INSERT ON events WHEN new.kind = 'choose'
BEGIN UPDATE items SET chosen = new.number WHERE number = new.item; END;
CREATE TRIGGER withdraw AFTER INSERT ON events WHEN new.kind = 'withdraw'
BEGIN UPDATE items SET chosen = NULL WHERE number = new.item; END;
CREATE TRIGGER answer AFTER INSERT ON events WHEN new.kind IN ('label', 'skip')
BEGIN
    INSERT OR REPLACE INTO held
    VALUES (new.item, new.annotator, new.number, new.label);
    UPDATE items SET {_ANSWERS} WHERE number = new.item;
END;
CREATE TRIGGER undo AFTER INSERT ON events WHEN new.kind = 'undo'
BEGIN
    DELETE FROM held WHERE number = new.target;
    INSERT OR IGNORE INTO held
    SELECT item, annotator, number, label FROM events AS answer
    WHERE item = new.item AND annotator = new.annotator
    AND kind IN ('label', 'skip')
    AND NOT EXISTS (SELECT 1 FROM events WHERE target = answer.number)
    ORDER BY number DESC LIMIT 1;
    UPDATE items SET {_ANSWERS} WHERE number = new.item;
END;
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
            f"{str(self.path)!r} is no store of labels ({reason}); bring back a "
            "copy of it, or name another file."
        )

    def _prepare(self):
        if self._kind() != (_APPLICATION, _VERSION):
            with self.writing() as connection:
                kind, version = self._kind()  # another may have been quicker
                # Only a new file is changed, never a database of something else.
                if kind != _APPLICATION:
                    if connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                        raise self._foreign("it holds other tables")
                    self._create()
                elif version > _VERSION:
                    raise self._foreign(
                        f"its version is {version}, this skal reads up to {_VERSION}: "
                        "update it"
                    )
                if version < _VERSION:
                    self._run(_DERIVED)
                    connection.execute(f"PRAGMA user_version = {_VERSION}")
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
        return tuple(self.read(f"PRAGMA {pragma}")[0][0] for pragma in pragmas)

    def _create(self):
        self._run(_TABLES)
        self.connection.execute(
            "INSERT INTO about VALUES ('project', ?)", [secrets.token_hex(6)]
        )
        self.connection.execute(f"PRAGMA application_id = {_APPLICATION}")

    def _run(self, statements):
        """Run statements in the transaction that is open."""
        statement = ""
        for line in statements.splitlines(keepends=True):
            statement += line
            if sqlite3.complete_statement(statement):
                self.connection.execute(statement)
                statement = ""

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
            self._local.connection = known
        return known

    @contextmanager
    def writing(self, *, durable=True):
        """Hold the one right to write: all that is done inside, or nothing.

        Parameters
        ----------
        durable : bool, default=True
            Whether it outlives a power cut from now on, or from the next that is.

        Yields
        ------
        connection : sqlite3.Connection
        """
        connection = self.connection
        connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
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
