"""`LabelStore`: what people answered, in one file to which is only added."""

import os
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from skal.annotate.schema import Database
from skal.annotate.votes import agreement, majority

# The answers that held after an event; of the bare columns SQLite takes those of the
# row with the largest number.
_HELD_THEN = """
(SELECT max(number) AS number, item, annotator FROM events AS answer
WHERE kind IN ('label', 'skip') AND number <= ?1 AND NOT EXISTS (
    SELECT 1 FROM events WHERE target = answer.number AND number <= ?1)
GROUP BY item, annotator)
"""
_WAITING = """
FROM items WHERE chosen IS NOT NULL AND state = '' AND n_answers < ?1 ORDER BY chosen
"""
_GIVEN = "SELECT 1 FROM events WHERE item = items.number AND kind = 'offer'"
# What waits, whether somebody has it or answered it, and how many have or did.
_PLACES = f"""
SELECT number, item, EXISTS ({_GIVEN} AND annotator = ?2) AS given,
    EXISTS (SELECT 1 FROM held WHERE item = items.number AND annotator = ?2) AS said,
    (SELECT count(*) FROM (
        SELECT annotator FROM events
        WHERE item = items.number AND kind = 'offer' AND time > ?3
        UNION SELECT annotator FROM held WHERE item = items.number)) AS n_people
{_WAITING}
"""


class Answer(NamedTuple):
    """What a person said of an item.

    Parameters
    ----------
    item : str
        Its name: the path of a file, or the number of a row.
    label : str or None
        None for a skip: the person cannot decide.
    annotator : str, default=""
    seconds : float, default=None
        How long the person took.
    """

    item: str
    label: str | None
    annotator: str = ""
    seconds: float | None = None


class LabelStore:
    """Keep the answers of people in one SQLite file, safe from whatever happens.

    Every answer, skip and undo is an event that is added and never changed, so that
    any earlier state can be had again. An answer whose call has returned is on the
    disk. Several threads and processes may use the file at once, on one machine: file
    systems of a network do not lock well enough.

    Parameters
    ----------
    path : path-like
        The file; made where it is absent.

    Raises
    ------
    ValueError
        Where the file is no store of labels.

    Examples
    --------
    >>> import tempfile, os
    >>> from skal.annotate import LabelStore
    >>> store = LabelStore(os.path.join(tempfile.mkdtemp(), "labels.sqlite"))
    >>> _ = store.add_classes(["cat", "dog"])
    >>> _ = store.add_items(["a.png", "b.png", "c.png"])
    >>> _ = store.answer("b.png", "dog")
    >>> store.labels()
    array([None, 'dog', None], dtype=object)
    >>> store.undo().item
    'b.png'
    >>> store.labels()
    array([None, None, None], dtype=object)
    """

    def __init__(self, path: str | os.PathLike):
        self._database = Database(path)
        self.path = self._database.path
        (row,) = self._database.read("SELECT value FROM about WHERE key = 'project'")
        self.project_id = row["value"]

    def __repr__(self):
        return f"LabelStore({str(self.path)!r})"

    def close(self) -> None:
        """Close the file in this thread; further calls open it again."""
        self._database.close()

    # -- items and classes ----------------------------------------------------------

    def items(self) -> pd.DataFrame:
        """List all items, by number.

        Returns
        -------
        items : DataFrame
            The columns item, content, stamp and state: "", "gone" or "broken". The
            index, from 0, is the position in `labels`.
        """
        columns = ["number", "item", "content", "stamp", "state"]
        query = f"SELECT {', '.join(columns)} FROM items ORDER BY number"
        rows = map(tuple, self._database.read(query))
        return pd.DataFrame(rows, columns=columns).set_index("number")

    def add_items(
        self,
        items: Iterable[str],
        contents: Iterable[str] | None = None,
        stamps: Iterable[str] | None = None,
    ) -> NDArray[np.int64]:
        """Add items; those whose name is known stay what they are.

        Parameters
        ----------
        items : iterable of str
            Names: paths, or numbers of rows.
        contents : iterable of str, default=None
            Hashes, by which an item is found under another name.
        stamps : iterable of str, default=None
            What tells cheaply that a file is as it was.

        Returns
        -------
        numbers : int64 array
            Of the added ones.
        """
        items = [str(item) for item in items]
        contents = [""] * len(items) if contents is None else list(contents)
        stamps = [""] * len(items) if stamps is None else list(stamps)
        with self._database.writing() as connection:
            known = set(self._numbers())
            ((number,),) = connection.execute("SELECT count(*) FROM items")
            rows, first = [], number
            for item, content, stamp in zip(items, contents, stamps, strict=True):
                if item not in known:
                    rows.append((number, item, content, stamp))
                    known.add(item)
                    number += 1
            connection.executemany(
                "INSERT INTO items (number, item, content, stamp) VALUES (?, ?, ?, ?)",
                rows,
            )
        return np.arange(first, number)

    def update_items(self, changes: dict[int, dict[str, str]]) -> None:
        """Note that items moved, changed, vanished, came back or cannot be read.

        Parameters
        ----------
        changes : dict of int to dict
            New values by number of the item and column of `items`; `reason` is kept in
            the event alone.
        """
        with self._database.writing() as connection:
            # Two items may change names: no two may have one in between.
            connection.executemany(
                "UPDATE items SET item = '//' || number WHERE number = ?",
                [(number,) for number, change in changes.items() if "item" in change],
            )
            events = []
            # A name is free once the item that had it is gone.
            order = sorted(changes, key=lambda n: changes[n].get("state") != "gone")
            for number in order:
                change = dict(changes[number])
                reason = change.pop("reason", None)
                columns = ", ".join(f"{name} = ?" for name in change)
                connection.execute(
                    f"UPDATE items SET {columns} WHERE number = ?",
                    [*change.values(), number],
                )
                if "item" in change:
                    events.append(("move", number, change["item"]))
                elif "content" in change:
                    events.append(("change", number, change["content"]))
                if "state" in change:
                    events.append((change["state"] or "back", number, reason))
            _append(connection, "kind item label", events)

    def numbers(self, items: Iterable[str]) -> list[int]:
        """Look up the numbers of items.

        Parameters
        ----------
        items : iterable of str

        Returns
        -------
        numbers : list of int
            Positions in `labels`.

        Raises
        ------
        ValueError
            Where there is no such item.
        """
        items = list(items)
        known = self._numbers(items[0] if len(items) == 1 else None)
        for item in items:
            if item not in known:
                raise ValueError(f"there is no item {item!r}.")
        return [known[item] for item in items]

    @property
    def classes(self) -> list[str]:
        """The classes, in the order in which they were added."""
        query = "SELECT label FROM events WHERE kind = 'class' ORDER BY number"
        return [row["label"] for row in self._database.read(query)]

    def add_classes(self, names: Iterable[str]) -> list[str]:
        """Add classes that are not known yet.

        Parameters
        ----------
        names : iterable of str

        Returns
        -------
        added : list of str

        Raises
        ------
        ValueError
            For a name that is empty, or has blanks around it or characters that no
            screen shows.
        """
        names = list(dict.fromkeys([names] if isinstance(names, str) else names))
        for name in names:
            if not isinstance(name, str) or not name.isprintable() or not name.strip():
                raise ValueError(f"a class must have a printable name, got {name!r}.")
            if name != name.strip():
                raise ValueError(f"the class {name!r} has blanks around it; strip it.")
        with self._database.writing() as connection:
            added = [name for name in names if name not in set(self.classes)]
            _append(connection, "kind label", [("class", name) for name in added])
        return added

    # -- answers --------------------------------------------------------------------

    def answer(
        self,
        item: str,
        label: str | None,
        annotator: str = "",
        *,
        seconds: float | None = None,
    ) -> int:
        """Record one answer; it is on the disk when this returns.

        Parameters
        ----------
        item : str
        label : str or None
            A class; None skips the item: the person cannot decide. Another answer of
            the same annotator is a correction.
        annotator : str, default=""
        seconds : float, default=None
            How long the person took.

        Returns
        -------
        number : int
            Of the event.

        Raises
        ------
        ValueError
            Where the item or the class is not known.
        """
        return self.record([Answer(str(item), label, annotator, seconds)])[0]

    def record(self, answers: Iterable[Answer]) -> list[int]:
        """Record answers: all of them, or none where one is wrong.

        Parameters
        ----------
        answers : iterable of Answer

        Returns
        -------
        numbers : list of int
            Of the events.

        Raises
        ------
        ValueError
            Where an item or a class is not known.
        """
        answers = list(answers)
        query = (
            "SELECT items.number, items.item, round, strategy FROM items "
            "LEFT JOIN events ON events.number = chosen "
            "WHERE state != 'gone'"
        )
        one = [answers[0].item] if len(answers) == 1 else []
        query += " AND items.item = ?" * len(one)
        with self._database.writing() as connection:
            classes = set(self.classes)
            known = {row["item"]: row for row in self._database.read(query, *one)}
            rows = []
            for answer in answers:
                if answer.item not in known:
                    raise ValueError(f"there is no item {answer.item!r}.")
                if answer.label is not None and answer.label not in classes:
                    raise ValueError(
                        f"{answer.label!r} is no class; the classes are "
                        f"{sorted(classes)}, add_classes adds one."
                    )
                number, _, *batch = known[answer.item]
                kind, said = "skip" if answer.label is None else "label", answer[1:]
                rows.append((kind, number, *said, *batch))
            columns = "kind item label annotator seconds round strategy"
            return _append(connection, columns, rows)

    def undo(self, annotator: str | None = None) -> Answer | None:
        """Take back the last answer; what was said before of that item holds again.

        Parameters
        ----------
        annotator : str, default=None
            Whose; None for the last of all.

        Returns
        -------
        answer : Answer or None
            What was taken back; None where there is nothing.
        """
        with self._database.writing() as connection:
            found = connection.execute(
                "SELECT held.number, held.item, items.item AS name, held.label, "
                "held.annotator, seconds FROM held JOIN events USING (number) "
                "JOIN items ON items.number = held.item "
                "WHERE ?1 IS NULL OR held.annotator = ?1 "
                "ORDER BY held.number DESC LIMIT 1",
                [annotator],
            ).fetchone()
            if found is None:
                return None
            number, item, *said = found
            event = ("undo", item, found["annotator"], number)
            _append(connection, "kind item annotator target", [event])
        return Answer(*said)

    # -- what is known --------------------------------------------------------------

    def events(self) -> pd.DataFrame:
        """List all that happened.

        Returns
        -------
        events : DataFrame
            By number: kind ("class", "label", "skip", "undo", "choose", "withdraw",
            "offer", "move", "change", "gone", "back", "broken"), item (its name now),
            label, annotator, time (UTC), seconds, round, strategy and target, the event
            that an undo takes back.
        """
        rows = self._database.read(
            "SELECT events.number, kind, items.item, label, annotator, time, seconds, "
            "round, strategy, target FROM events LEFT JOIN items "
            "ON items.number = events.item ORDER BY events.number"
        )
        columns = "number kind item label annotator time seconds round strategy target"
        frame = pd.DataFrame(map(tuple, rows), columns=columns.split())
        frame["time"] = pd.to_datetime(frame["time"].astype(float), unit="s", utc=True)
        whole = {"round": "Int64", "target": "Int64", "seconds": float}
        return frame.astype(whole).set_index("number")

    def answers(
        self,
        upto: int | None = None,
        *,
        annotator: str | None = None,
        item: int | None = None,
        last: int = -1,
    ) -> pd.DataFrame:
        """List the answers that hold: the last one of each annotator to each item.

        Parameters
        ----------
        upto : int, default=None
            Number of the last event to look at; None for all.
        annotator : str, default=None
            Only theirs.
        item : int, default=None
            Only those to it, by number.
        last : int, default=-1
            Only so many, the latest; -1 for all.

        Returns
        -------
        answers : DataFrame
            By number of the event, in order: kind, item (its number), label (None for a
            skip), annotator, time, seconds, round, strategy.
        """
        columns = "number kind item label annotator time seconds round strategy".split()
        rows = self._database.read(
            f"SELECT {', '.join(f'events.{name}' for name in columns)} "
            f"FROM {'held' if upto is None else _HELD_THEN} AS held "
            "JOIN events ON events.number = held.number "
            "WHERE (?2 IS NULL OR held.annotator = ?2) "
            "AND (?3 IS NULL OR held.item = ?3) "
            "ORDER BY held.number DESC LIMIT ?4",
            *(upto, annotator, item, last),
        )
        frame = pd.DataFrame(map(tuple, rows[::-1]), columns=columns, dtype=object)
        return frame.astype({"number": int, "item": int}).set_index("number")

    @property
    def n_answers(self) -> int:
        """Number of the answers that hold."""
        ((number,),) = self._database.read("SELECT count(*) FROM held")
        return number

    def tally(self) -> tuple[dict[str, int], int]:
        """Count the labels of the items that can be labelled, by majority.

        Returns
        -------
        counts : dict of str to int
            By class; classes without a label are left out.
        n_answered : int
            Items with any answer: also those skipped, and those whose annotators are
            split evenly.
        """
        counts = self._database.read(
            "SELECT majority, count(*) FROM items "
            "WHERE n_answers > 0 AND state = '' GROUP BY majority"
        )
        counts = dict(map(tuple, counts))
        n_answered = sum(counts.values())
        counts.pop(None, None)
        return counts, n_answered

    def labels(
        self,
        *,
        skip_label: Any = None,
        annotator: str | None = None,
        upto: int | None = None,
    ) -> NDArray:
        """Give the `y` of an `ActiveLearningLoop`: None where a label is missing.

        Parameters
        ----------
        skip_label : object, default=None
            Stands for items that were skipped and never labelled, and for those on
            which the annotators are split evenly.
        annotator : str, default=None
            Whose answers; None takes the majority of all.
        upto : int, default=None
            Number of the last event to look at: the state at that time.

        Returns
        -------
        y : array of object of shape (n_items,)
        """
        ((n_items,),) = self._database.read("SELECT count(*) FROM items")
        y = np.full(n_items, None, dtype=object)
        answers = self.answers(upto, annotator=annotator)
        y[answers["item"].unique()] = skip_label
        labels, _ = majority(answers)
        y[labels.index.to_numpy(int)] = labels.to_numpy(object)
        return y

    def conflicts(self) -> list[str]:
        """Name the items on which the annotators are split evenly.

        Returns
        -------
        items : list of str
        """
        _, tied = majority(self.answers())
        return self.items()["item"].loc[sorted(tied)].tolist()

    def agreement(self) -> pd.DataFrame:
        """Compare the annotators in pairs.

        Returns
        -------
        pairs : DataFrame
            The columns first, second, n_items, agreement and kappa (Cohen's).
        """
        return agreement(self.answers())

    @property
    def version(self) -> int:
        """Number of the last event, -1 before the first: it grows with each."""
        ((number,),) = self._database.read("SELECT max(number) FROM events")
        return -1 if number is None else number

    # -- batches --------------------------------------------------------------------

    def choose(
        self,
        numbers: Iterable[int],
        strategy: str | None = None,
        *,
        replace: bool = False,
    ) -> int:
        """Put items in the queue of those to label next, as one round.

        Parameters
        ----------
        numbers : iterable of int
            Positions in `labels`, best first.
        strategy : str, default=None
            What chose them.
        replace : bool, default=False
            Take out what is in the queue and was handed to nobody yet.

        Returns
        -------
        round : int
            From 0.
        """
        numbers = [int(number) for number in numbers]
        with self._database.writing(durable=False) as connection:
            query = "SELECT max(round) FROM events WHERE kind = 'choose'"
            last = connection.execute(query).fetchone()[0]
            number = 0 if last is None else last + 1
            if replace:
                waiting = np.setdiff1d(self.queue(), self.queue(handed_out=True))
                rows = [("withdraw", item) for item in waiting.tolist()]
                _append(connection, "kind item", rows)
            rows = [("choose", item, number, strategy) for item in numbers]
            _append(connection, "kind item round strategy", rows)
        return number

    def draw(self, n_items: int) -> int:
        """Put items in the queue that nobody chose or answered, at random.

        Parameters
        ----------
        n_items : int
            How many at most.

        Returns
        -------
        round : int
        """
        rows = self._database.read(
            "SELECT number FROM items WHERE chosen IS NULL AND state = '' "
            "AND n_answers = 0 ORDER BY random() LIMIT ?",
            n_items,
        )
        return self.choose([number for (number,) in rows], "random")

    def hand_out(
        self,
        n_items: int,
        annotator: str = "",
        *,
        copies: int = 1,
        patience: float | None = None,
    ) -> list[str]:
        """Give a person what to label next: until it is answered the same again.

        Parameters
        ----------
        n_items : int
            How many at most.
        annotator : str, default=""
        copies : int, default=1
            How many people are to label each item; nobody gets what so many others
            have or had.
        patience : float, default=None
            Seconds after which what another has not answered is handed out again.

        Returns
        -------
        items : list of str
            What the person has; only where that is nothing, further items of the queue.
        """
        since = -np.inf if patience is None else time.time() - patience
        with self._database.writing(durable=False) as connection:
            mine, free = [], []
            for row in self._database.read(_PLACES, copies, annotator, since):
                if row["given"] and not row["said"]:
                    mine.append(row)
                elif not (row["given"] or row["said"]) and row["n_people"] < copies:
                    free.append(row)
            if not mine:
                mine = free[:n_items]
                rows = [("offer", row["number"], annotator) for row in mine]
                _append(connection, "kind item annotator", rows)
        return [row["item"] for row in mine[:n_items]]

    def queue(self, copies: int = 1, *, handed_out: bool = False) -> NDArray[np.int64]:
        """List what was chosen and waits for answers.

        Parameters
        ----------
        copies : int, default=1
            How many people are to label each item.
        handed_out : bool, default=False
            Only what somebody was given.

        Returns
        -------
        numbers : int64 array
            Positions in `labels`, in the order of choice.
        """
        only = f"AND EXISTS ({_GIVEN}) ORDER" if handed_out else "ORDER"
        query = "SELECT number " + _WAITING.replace("ORDER", only)
        numbers = [number for (number,) in self._database.read(query, copies)]
        return np.array(numbers, dtype=np.int64)

    def _numbers(self, item=None):
        """Numbers of the items by name, or of one."""
        query = "SELECT item, number FROM items WHERE state != 'gone'"
        if item is None:
            return dict(map(tuple, self._database.read(query)))
        return dict(map(tuple, self._database.read(f"{query} AND item = ?", item)))


def _append(connection, columns, rows):
    """Add events, which are told the time, and return their numbers."""
    columns = columns.split()
    ((first,),) = connection.execute("SELECT coalesce(max(number) + 1, 0) FROM events")
    now, marks = time.time(), ", ".join("?" * (len(columns) + 2))
    connection.executemany(
        f"INSERT INTO events (number, time, {', '.join(columns)}) VALUES ({marks})",
        [(number, now, *row) for number, row in enumerate(rows, first)],
    )
    return [*range(first, first + len(rows))]
