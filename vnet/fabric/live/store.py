"""The store in SQLite, in WAL mode: one file, no service, survives `kill -9` between two statements."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vnet.base.errors import HostError
from vnet.fabric import encode
from vnet.fabric.live.database import transaction
from vnet.fabric.state import Guest
from vnet.fabric.store import Record, Source

SCHEMA_VERSION = 3

_PENDING = """
CREATE TABLE pending (
    fabric TEXT PRIMARY KEY REFERENCES fabric(name) ON DELETE CASCADE, value TEXT NOT NULL
) STRICT;
"""
_SCHEMA = f"""
CREATE TABLE fabric (
    name TEXT PRIMARY KEY, file TEXT NOT NULL, text TEXT NOT NULL, env TEXT NOT NULL,
    generation INTEGER NOT NULL, enforced INTEGER NOT NULL, boot_id TEXT NOT NULL, stopped TEXT NOT NULL,
    included TEXT NOT NULL DEFAULT '{{}}'
) STRICT;
CREATE TABLE assignment (
    fabric TEXT NOT NULL REFERENCES fabric(name) ON DELETE CASCADE,
    nic TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (fabric, nic)
) STRICT;
CREATE TABLE provenance (
    fabric TEXT NOT NULL REFERENCES fabric(name) ON DELETE CASCADE,
    cookie TEXT NOT NULL, origin TEXT NOT NULL, PRIMARY KEY (fabric, cookie)
) STRICT;
CREATE TABLE guest (
    fabric TEXT NOT NULL REFERENCES fabric(name) ON DELETE CASCADE,
    name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (fabric, name)
) STRICT;
{_PENDING}
"""


_NEWER = {1: "ALTER TABLE fabric ADD COLUMN included TEXT NOT NULL DEFAULT '{}';", 2: _PENDING}
"""What makes a file of a version one of the next."""

_SAVE_FABRIC = """
INSERT INTO fabric VALUES (?,?,?,?,?,?,?,?,?) ON CONFLICT(name) DO UPDATE SET
    file=excluded.file, text=excluded.text, env=excluded.env, generation=excluded.generation,
    enforced=excluded.enforced, boot_id=excluded.boot_id, stopped=excluded.stopped, included=excluded.included
"""
"""Not INSERT OR REPLACE: that would delete the row first, and its guests with it."""


class SqliteStore:
    """See `vnet.fabric.store.Store`; used from one thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._explained("open"):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            path.touch(mode=0o600)  # it holds topologies with what they took from the environment
            path.chmod(0o600)
            self._db = sqlite3.connect(path, isolation_level=None, timeout=5)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA foreign_keys=ON")
            self._migrate()

    @classmethod
    def reading(cls, path: Path) -> SqliteStore:
        """What is there, to be read only: beside a daemon that writes, and without changing anything."""
        store = cls.__new__(cls)
        store.path = path
        with store._explained("read"):
            store._db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None, timeout=5)
            (version,) = store._db.execute("PRAGMA user_version").fetchone()
        if version != SCHEMA_VERSION:
            store._db.close()
            raise HostError(f"{path} has schema version {version}, this vnet understands {SCHEMA_VERSION}")
        return store

    def _migrate(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            self._db.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version={SCHEMA_VERSION};COMMIT;")
            return
        while version in _NEWER:
            steps = f"{_NEWER[version]}PRAGMA user_version={version + 1};"
            self._db.executescript(f"BEGIN;{steps}COMMIT;")
            version += 1
        if version != SCHEMA_VERSION:
            raise HostError(
                f"{self.path} has schema version {version}, this vnet understands {SCHEMA_VERSION}: "
                "use the vnet that wrote it to run `vnet down`, then remove the file"
            )

    @contextmanager
    def _explained(self, action: str) -> Iterator[None]:
        """Turn what SQLite and the file system say into something the user can act on."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            hint = "check that the directory is writable"
            if "full" in str(error) or getattr(error, "errno", None) == 28:
                hint = f"free space on the file system of {self.path.parent} and run the command again"
            elif "malformed" in str(error) or "not a database" in str(error):
                hint = "the file is damaged: move it away, then remove what is left with `vnet doctor`'s help"
            raise HostError(f"cannot {action} the state database {self.path}: {error}; {hint}") from error

    @contextmanager
    def _transaction(self, action: str) -> Iterator[sqlite3.Connection]:
        with self._explained(action), transaction(self._db) as db:
            yield db

    def fabrics(self) -> tuple[str, ...]:
        """Names of all fabrics, sorted."""
        with self._explained("read"):
            return tuple(name for (name,) in self._db.execute("SELECT name FROM fabric ORDER BY name"))

    def load(self, name: str) -> Record | None:
        """The fabric, or None."""
        with self._explained("read"):
            row = self._db.execute(
                "SELECT file, text, env, generation, enforced, boot_id, stopped, included"
                " FROM fabric WHERE name=?",
                (name,),
            ).fetchone()
            if row is None:
                return None
            assignments = self._db.execute("SELECT nic, value FROM assignment WHERE fabric=?", (name,))
            provenance = self._db.execute("SELECT cookie, origin FROM provenance WHERE fabric=?", (name,))
            pending = self._db.execute("SELECT value FROM pending WHERE fabric=?", (name,)).fetchone()
            return Record(
                name,
                Source(row[0], row[1], json.loads(row[2]), json.loads(row[7])),
                row[3],
                row[4],
                row[5],
                {nic: encode.assignment_from_json(value) for nic, value in assignments},
                frozenset(json.loads(row[6])),
                {int(cookie, 16): json.loads(origin) for cookie, origin in provenance},
                encode.pending_from_json(pending[0]) if pending else None,
            )

    def save(self, record: Record) -> None:
        """Put the fabric as it is now, replacing what was there; its guests stay."""
        source, name = record.source, record.name
        head = (
            name,
            source.file,
            source.text,
            json.dumps(dict(source.env)),
            record.generation,
            record.enforced,
        )
        with self._transaction("write") as db:
            db.execute(
                _SAVE_FABRIC,
                (
                    *head,
                    record.boot_id,
                    json.dumps(sorted(record.stopped)),
                    json.dumps(dict(source.included)),
                ),
            )
            db.execute("DELETE FROM assignment WHERE fabric=?", (name,))
            assignments = record.assignments.items()
            db.executemany(
                "INSERT INTO assignment VALUES (?,?,?)",
                [(name, nic, encode.assignment_to_json(value)) for nic, value in assignments],
            )
            db.execute("DELETE FROM provenance WHERE fabric=?", (name,))
            origins = record.provenance.items()
            db.executemany(
                "INSERT INTO provenance VALUES (?,?,?)",
                [(name, f"{cookie:016x}", json.dumps(dict(origin))) for cookie, origin in origins],
            )
            _save_pending(db, record)

    def save_pending(self, record: Record) -> None:
        """Put what waits for confirmation, and nothing else of the record."""
        with self._transaction("write") as db:
            _save_pending(db, record)

    def save_enforced(self, name: str, generation: int) -> None:
        """Note that the flows of a generation are in force."""
        with self._transaction("write") as db:
            db.execute("UPDATE fabric SET enforced=? WHERE name=?", (generation, name))

    def remove(self, name: str) -> None:
        """Forget the fabric and its guests."""
        with self._transaction("write") as db:
            db.execute("DELETE FROM fabric WHERE name=?", (name,))

    def guests(self, name: str) -> tuple[Guest, ...]:
        """The guests that were started, with the specification they were started with."""
        with self._explained("read"):
            rows = self._db.execute("SELECT value FROM guest WHERE fabric=? ORDER BY name", (name,))
            return tuple(encode.guest_from_json(value) for (value,) in rows)

    def save_guest(self, name: str, guest: Guest) -> None:
        """Remember a guest; before it is started, so that a crash cannot orphan it."""
        with self._transaction("write") as db:
            row = (name, guest.name, encode.guest_to_json(guest))
            db.execute("INSERT OR REPLACE INTO guest VALUES (?,?,?)", row)

    def remove_guest(self, name: str, guest: str) -> None:
        """Forget a guest; after it is gone."""
        with self._transaction("write") as db:
            db.execute("DELETE FROM guest WHERE fabric=? AND name=?", (name, guest))

    def close(self) -> None:
        """Release the file."""
        self._db.close()


def _save_pending(db: sqlite3.Connection, record: Record) -> None:
    db.execute("DELETE FROM pending WHERE fabric=?", (record.name,))
    if record.pending is not None:
        row = (record.name, encode.pending_to_json(record.pending))
        db.execute("INSERT INTO pending VALUES (?,?)", row)
