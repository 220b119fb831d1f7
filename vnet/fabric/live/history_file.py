"""The history in SQLite: a file of bounded size of which the oldest goes first. Used from one thread.

The bound holds for all of it on disk. The database may have as many pages as leave room for the log of
writes (WAL), which is emptied whenever it has grown to half of that room. A full disk, or a bound that is
reached in spite of all, raises HistoryStopped and leaves what is there.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

from vnet.base.errors import HostError
from vnet.fabric.live.database import transaction
from vnet.fabric.seen import DecidedBy
from vnet.fabric.store import Source
from vnet.fabric.tally import MINUTE_NS, Entry, Era, Kind

SCHEMA_VERSION = 1
PAGE_BYTES = 4096
LEAST_BYTES = 4 << 20
WRITTEN_AT_ONCE = 500
"""Lines of one transaction."""
FULL = 0.9
"""Of the pages, from which on the oldest lines go."""
GOES = 4000
"""Lines that go at once."""
KINDS_REMEMBERED = 20_000
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
ROWS = 100_000
"""Of one answer."""

_SCHEMA = """
CREATE TABLE text (digest BLOB PRIMARY KEY, body BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE generation (
    id INTEGER PRIMARY KEY, fabric TEXT NOT NULL, number INTEGER NOT NULL, since_ns INTEGER NOT NULL,
    file TEXT NOT NULL, text BLOB NOT NULL, included TEXT NOT NULL, env TEXT NOT NULL
) STRICT;
CREATE INDEX generation_of ON generation (fabric, since_ns);
CREATE TABLE origin (
    id INTEGER PRIMARY KEY, cookie TEXT NOT NULL, at TEXT NOT NULL, policy TEXT NOT NULL, rule TEXT NOT NULL,
    text TEXT NOT NULL, UNIQUE (cookie, at, policy, rule, text)
) STRICT;
CREATE TABLE kind (
    id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, generation INTEGER NOT NULL, verdict TEXT NOT NULL,
    reason TEXT NOT NULL, origin INTEGER, source TEXT, source_address TEXT, destination TEXT,
    destination_address TEXT, network TEXT NOT NULL, protocol INTEGER, port INTEGER, sender TEXT,
    state TEXT NOT NULL, folded INTEGER NOT NULL, sample_ns INTEGER, sample_length INTEGER, sample BLOB
) STRICT;
CREATE TABLE minute (
    minute INTEGER NOT NULL, kind INTEGER NOT NULL, packets INTEGER NOT NULL, bytes INTEGER NOT NULL,
    connections INTEGER NOT NULL, first_ns INTEGER NOT NULL, last_ns INTEGER NOT NULL,
    PRIMARY KEY (minute, kind)
) STRICT, WITHOUT ROWID;
CREATE TABLE exact (
    fabric TEXT NOT NULL, minute INTEGER NOT NULL, what TEXT NOT NULL, name TEXT NOT NULL,
    packets INTEGER NOT NULL, PRIMARY KEY (fabric, minute, what, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE counter (
    fabric TEXT NOT NULL, what TEXT NOT NULL, name TEXT NOT NULL, value INTEGER NOT NULL,
    PRIMARY KEY (fabric, what, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE gap (
    fabric TEXT NOT NULL, since_ns INTEGER NOT NULL, until_ns INTEGER NOT NULL, why TEXT NOT NULL
) STRICT;
"""
_ADD = """
INSERT INTO minute VALUES (?,?,?,?,?,?,?) ON CONFLICT (minute, kind) DO UPDATE SET
    packets = packets + excluded.packets, bytes = bytes + excluded.bytes,
    connections = connections + excluded.connections, first_ns = min(first_ns, excluded.first_ns),
    last_ns = max(last_ns, excluded.last_ns)
"""
_COUNT = """
INSERT INTO exact VALUES (?,?,?,?,?)
    ON CONFLICT (fabric, minute, what, name) DO UPDATE SET packets = packets + excluded.packets
"""
_SUMS = """
SELECT kind.id, verdict, reason, source, source_address, destination, destination_address, network, protocol,
    port, sender, state, folded, sum(packets) AS packets, sum(bytes) AS bytes,
    sum(connections) AS connections, min(first_ns) AS first_ns, max(last_ns) AS last_ns,
    generation.number AS generation, generation.id AS generation_id, origin.cookie, origin.at,
    origin.policy, origin.rule, origin.text AS origin_text, sample IS NOT NULL AS has_sample
FROM minute JOIN kind ON kind.id = minute.kind JOIN generation ON generation.id = kind.generation
    LEFT JOIN origin ON origin.id = kind.origin
WHERE fabric = ? AND minute BETWEEN ? AND ? AND last_ns >= ? AND first_ns <= ?
GROUP BY kind.id ORDER BY last_ns DESC LIMIT ?
"""

Row = Mapping[str, Any]


class HistoryStopped(HostError):
    """Nothing can be written; what was is still there."""


class HistoryDamaged(HistoryStopped):
    """The file is not what SQLite wrote: nothing can be done with it."""


class HistoryFile:
    """See the module. Every call is one or several whole transactions."""

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self.path, self.limit_bytes = path, max(limit_bytes, LEAST_BYTES)
        self._log_bytes = self.limit_bytes // 4
        self._kinds: dict[tuple[Era, Kind], int] = {}
        self._eras: dict[Era, int] = {}
        with self._explained():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            self._db = self._opened()
            self._db.row_factory = sqlite3.Row

    def _opened(self) -> sqlite3.Connection:
        """A file that is damaged, or of another version, is put aside: it is history."""
        try:
            return self._connected()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
        self._put_aside()
        return self._connected()

    def _put_aside(self) -> None:
        for suffix in ("-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        self.path.replace(f"{self.path}.damaged")

    def give_up(self) -> None:
        """Close it and put it aside. Raises HistoryStopped."""
        with self._explained():
            with suppress(sqlite3.Error):
                self._db.close()
            self._put_aside()

    def _connected(self) -> sqlite3.Connection:
        self.path.touch(mode=0o600)
        db = sqlite3.connect(self.path, isolation_level=None, timeout=5, check_same_thread=False)
        try:
            self._prepare(db)
        except BaseException:
            db.close()
            raise
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        pages = (self.limit_bytes - self._log_bytes) // PAGE_BYTES
        for setting in (
            f"page_size={PAGE_BYTES}",
            "auto_vacuum=INCREMENTAL",
            "journal_mode=WAL",
            "synchronous=NORMAL",
            f"max_page_count={pages}",
            f"journal_size_limit={self._log_bytes}",
            f"wal_autocheckpoint={self._log_bytes // PAGE_BYTES // 4}",
            "cache_size=-2000",
            "temp_store=MEMORY",
        ):
            db.execute(f"PRAGMA {setting}")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            db.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version={SCHEMA_VERSION};COMMIT;")
        elif version != SCHEMA_VERSION:
            raise sqlite3.DatabaseError(f"schema version {version}")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            stopped = HistoryDamaged if code in _DAMAGED else HistoryStopped
            raise stopped(f"cannot keep history in {self.path}: {error}") from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._explained():
            self._make_room()
            try:
                with transaction(self._db) as db:
                    yield db
            except BaseException:
                self._kinds.clear()
                self._eras.clear()
                raise

    # room

    def size_bytes(self) -> int:
        """What it takes on disk."""
        files = (self.path, Path(f"{self.path}-wal"), Path(f"{self.path}-shm"))
        return sum(file.stat().st_size for file in files if file.exists())

    def _make_room(self) -> None:
        log = Path(f"{self.path}-wal")
        if log.exists() and log.stat().st_size > self._log_bytes // 2:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            if log.exists() and log.stat().st_size > self._log_bytes // 2:
                raise OSError("somebody else reads it and keeps its log from being emptied")
        most = (self.limit_bytes - self._log_bytes) // PAGE_BYTES
        while self._pages("page_count") - self._pages("freelist_count") > most * FULL:
            if not self._forget_oldest():
                break
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        beyond = self._pages("page_count") - most
        if beyond > 0:  # the bound was lowered
            self._db.executescript(f"PRAGMA incremental_vacuum({beyond});")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._db.execute(f"PRAGMA max_page_count={most}")

    def _pages(self, which: str) -> int:
        return int(self._db.execute(f"PRAGMA {which}").fetchone()[0])

    def _forget_oldest(self) -> bool:
        """Whether something went."""
        db = self._db
        row = db.execute("SELECT minute FROM minute ORDER BY minute LIMIT 1 OFFSET ?", (GOES,)).fetchone()
        row = row or db.execute("SELECT max(minute) FROM minute").fetchone()
        if row is None or row[0] is None:
            return False
        until = row[0]
        db.execute("BEGIN IMMEDIATE")
        db.execute("DELETE FROM minute WHERE minute <= ?", (until,))
        db.execute("DELETE FROM exact WHERE minute <= ?", (until,))
        db.execute("DELETE FROM gap WHERE until_ns < ?", (until * MINUTE_NS,))
        db.execute("DELETE FROM kind WHERE id NOT IN (SELECT kind FROM minute)")
        db.execute("DELETE FROM origin WHERE id NOT IN (SELECT origin FROM kind WHERE origin IS NOT NULL)")
        db.execute(
            "DELETE FROM generation WHERE id NOT IN (SELECT generation FROM kind)"
            " AND id NOT IN (SELECT max(id) FROM generation GROUP BY fabric)"
        )
        self._forget_texts()
        db.execute("COMMIT")
        self._kinds.clear()
        self._eras.clear()
        return True

    def _forget_texts(self) -> None:
        used = {row["text"] for row in self._db.execute("SELECT text FROM generation")}
        for row in self._db.execute("SELECT included FROM generation"):
            used |= {bytes.fromhex(digest) for digest in json.loads(row["included"]).values()}
        for row in self._db.execute("SELECT digest FROM text").fetchall():
            if row["digest"] not in used:
                self._db.execute("DELETE FROM text WHERE digest = ?", (row["digest"],))

    # writing

    def write(self, entries: Iterable[Entry]) -> None:
        """Add lines, some at a time. Raises HistoryStopped; what was written before stays."""
        waiting = list(entries)
        for at in range(0, len(waiting), WRITTEN_AT_ONCE):
            with self._transaction() as db:
                rows = [self._line(entry) for entry in waiting[at : at + WRITTEN_AT_ONCE]]
                db.executemany(_ADD, rows)

    def _line(self, entry: Entry) -> tuple[int, ...]:
        seen = entry.sum
        kind = self._kind(entry)
        return entry.minute, kind, seen.packets, seen.octets, seen.connections, seen.first_ns, seen.last_ns

    def enter(self, era: Era) -> None:
        """Note that a generation is in force, with its text."""
        if era not in self._eras:
            with self._transaction():
                self._era(era)

    def count(self, fabric: str, minute: int, what: str, now: Mapping[str, int]) -> None:
        """Counters as they are now: what they have counted since they were told last goes to this minute."""
        with self._transaction() as db:
            before = self._counters(fabric, what)
            for name, value in now.items():
                was = before.get(name, 0)
                more = value if value < was and what != "rule" else max(0, value - was)
                if more:
                    db.execute(_COUNT, (fabric, minute, what, name, more))
                if value != was:
                    db.execute("INSERT OR REPLACE INTO counter VALUES (?,?,?,?)", (fabric, what, name, value))

    def _counters(self, fabric: str, what: str) -> Mapping[str, int]:
        query = "SELECT name, value FROM counter WHERE fabric = ? AND what = ?"
        return {row["name"]: row["value"] for row in self._db.execute(query, (fabric, what))}

    def noted(self, fabric: str, what: str) -> Mapping[str, int]:
        """Counters, or other numbers, as they were told last."""
        with self._explained():
            return self._counters(fabric, what)

    def note(self, fabric: str, what: str, now: Mapping[str, int]) -> None:
        """Keep numbers for the next daemon."""
        with self._transaction() as db:
            rows = [(fabric, what, name, value) for name, value in now.items()]
            db.executemany("INSERT OR REPLACE INTO counter VALUES (?,?,?,?)", rows)

    def forget_counters(self, fabric: str) -> None:
        """A fabric is gone: its counters begin anew, its history stays."""
        with self._transaction() as db:
            db.execute("DELETE FROM counter WHERE fabric = ?", (fabric,))

    def miss(self, fabric: str, since_ns: int, until_ns: int, why: str) -> None:
        """Of this time something is missing."""
        with self._transaction() as db:
            db.execute("INSERT INTO gap VALUES (?,?,?,?)", (fabric, since_ns, until_ns, why))

    # what lines refer to

    def _era(self, era: Era) -> int:
        known = self._eras.get(era)
        if known is None:
            known = self._eras[era] = self._same_era(era) or self._new_era(era)
        return known

    def _same_era(self, era: Era) -> int | None:
        """That of an earlier daemon, if nothing has changed since."""
        row = self._db.execute(
            "SELECT * FROM generation WHERE fabric = ? ORDER BY id DESC LIMIT 1", (era.fabric,)
        ).fetchone()
        source = era.source
        same = row is not None and (row["number"], row["text"], row["file"]) == (
            era.generation,
            _digest(source.text),
            source.file,
        )
        included = {path: _digest(text).hex() for path, text in source.included.items()}
        return row["id"] if same and json.loads(row["included"]) == included else None

    def _new_era(self, era: Era) -> int:
        source = era.source
        included = {path: self._text(text).hex() for path, text in source.included.items()}
        row = (
            era.fabric,
            era.generation,
            era.since_ns,
            source.file,
            self._text(source.text),
            json.dumps(included),
            json.dumps(dict(source.env)),
        )
        return _id(self._db.execute("INSERT INTO generation VALUES (NULL,?,?,?,?,?,?,?)", row))

    def _text(self, text: str) -> bytes:
        digest = _digest(text)
        self._db.execute(
            "INSERT OR IGNORE INTO text VALUES (?,?)",
            (digest, zlib.compress(text.encode("utf-8", "surrogateescape"))),
        )
        return digest

    def _kind(self, entry: Entry) -> int:
        key = entry.era, entry.kind
        known = self._kinds.get(key)
        if known is None:
            era = self._era(entry.era)
            digest = blake2b(repr((era, tuple(map(str, entry.kind)))).encode(), digest_size=12).digest()
            known = self._found(digest) or self._new_kind(digest, era, entry.kind, entry)
            if len(self._kinds) >= KINDS_REMEMBERED:
                self._kinds.clear()
            self._kinds[key] = known
        return known

    def _found(self, digest: bytes) -> int | None:
        row = self._db.execute("SELECT id FROM kind WHERE digest = ?", (digest,)).fetchone()
        return row["id"] if row else None

    def _new_kind(self, digest: bytes, era: int, kind: Kind, entry: Entry) -> int:
        sample = entry.sum.sample
        row = (
            digest,
            era,
            kind.verdict.value,
            kind.reason,
            self._origin(kind.by) if kind.by else None,
            kind.source,
            _shown(kind.source_address),
            kind.destination,
            _shown(kind.destination_address),
            kind.network,
            kind.protocol,
            kind.port,
            kind.sender,
            kind.state,
            int(kind.is_folded),
            *((sample.time_ns, sample.length, sample.data) if sample else (None, None, None)),
        )
        marks = ",".join("?" * len(row))
        return _id(self._db.execute(f"INSERT INTO kind VALUES (NULL,{marks})", row))

    def _origin(self, by: DecidedBy) -> int:
        row = (f"{by.cookie:016x}", by.at, by.policy, by.rule, by.text)
        self._db.execute("INSERT OR IGNORE INTO origin VALUES (NULL,?,?,?,?,?)", row)
        query = "SELECT id FROM origin WHERE cookie = ? AND at = ? AND policy = ? AND rule = ? AND text = ?"
        return int(self._db.execute(query, row).fetchone()["id"])

    # reading

    def sums(self, fabric: str, since_ns: int, until_ns: int, rows: int = ROWS) -> list[Row]:
        """What was seen in a time, by kind, what was last first."""
        given = (fabric, since_ns // MINUTE_NS, until_ns // MINUTE_NS, since_ns, until_ns, rows)
        return self._rows(_SUMS, given)

    def exact(self, fabric: str, since_ns: int, until_ns: int, what: str) -> list[Row]:
        """What counters have counted in the minutes that a time touches."""
        return self._rows(
            "SELECT name, sum(packets) AS packets FROM exact"
            " WHERE fabric = ? AND minute BETWEEN ? AND ? AND what = ? GROUP BY name ORDER BY 2 DESC",
            (fabric, since_ns // MINUTE_NS, until_ns // MINUTE_NS, what),
        )

    def sample(self, kind: int) -> Row | None:
        """The first packet of a kind."""
        found = self._rows(
            "SELECT kind.*, fabric, generation.number AS generation_number, origin.cookie, origin.at,"
            " origin.policy, origin.rule, origin.text AS origin_text FROM kind"
            " JOIN generation ON generation.id = kind.generation LEFT JOIN origin ON origin.id = kind.origin"
            " WHERE kind.id = ? AND sample IS NOT NULL",
            (kind,),
        )
        return found[0] if found else None

    def generations(self, fabric: str) -> list[Row]:
        """All of a fabric that are remembered, the newest first."""
        return self._rows(
            "SELECT id, number, since_ns, file, length(text) AS size FROM generation WHERE fabric = ?"
            " ORDER BY id DESC",
            (fabric,),
        )

    def source(self, generation: int) -> Source | None:
        """The text of a generation, by its id."""
        found = self._rows("SELECT * FROM generation WHERE id = ?", (generation,))
        if not found:
            return None
        row = found[0]
        included = {
            path: self._body(bytes.fromhex(digest)) for path, digest in json.loads(row["included"]).items()
        }
        return Source(row["file"], self._body(row["text"]), json.loads(row["env"]), included)

    def _body(self, digest: bytes) -> str:
        (row,) = self._rows("SELECT body FROM text WHERE digest = ?", (digest,))
        return zlib.decompress(row["body"]).decode("utf-8", "surrogateescape")

    def gaps(self, fabric: str, since_ns: int, until_ns: int) -> list[Row]:
        """Times of which something is missing."""
        return self._rows(
            "SELECT since_ns, until_ns, why FROM gap WHERE fabric IN (?, '') AND until_ns >= ?"
            " AND since_ns <= ? ORDER BY since_ns LIMIT 1000",
            (fabric, since_ns, until_ns),
        )

    def fabrics(self) -> tuple[str, ...]:
        """All that there is history of."""
        return tuple(row["fabric"] for row in self._rows("SELECT DISTINCT fabric FROM generation", ()))

    def extent(self) -> tuple[int | None, int]:
        """The first minute that is kept, in nanoseconds since 1970, and how many lines there are."""
        (row,) = self._rows("SELECT min(minute) AS first, count(*) AS lines FROM minute", ())
        return (None if row["first"] is None else row["first"] * MINUTE_NS), row["lines"]

    def _rows(self, query: str, given: Sequence[Any]) -> list[Row]:
        with self._explained():
            return [dict(row) for row in self._db.execute(query, given)]

    def close(self) -> None:
        """Let go of the file."""
        with suppress(sqlite3.Error):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._db.close()


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).digest()


def _shown(address: object) -> str | None:
    return None if address is None else str(address)


def _id(cursor: sqlite3.Cursor) -> int:
    assert cursor.lastrowid is not None
    return cursor.lastrowid
