"""What outlives the server: labs, their documents, the log of accepted commands, and checkpoints.

    ringside.sqlite   labs, log, checkpoints (which blob, after which revision, at which position), comparisons
    blobs/ab/abcd...  checkpoints by their SHA-256, written to a temporary name, synced, then renamed
    lock              held by the one server that uses the folder

Invariants
- What `commit` returned for is on the disk: WAL with synchronous=FULL. NORMAL would do for a killed process
  (the pages are the kernel's then) but loses the last commits in a power cut, and an acknowledgement is a
  promise about both. People give a few commands a second and commits that wait together share one sync, so
  the price is a few milliseconds an acknowledgement.
- A lab is its newest readable checkpoint and the log after it. The last `KEPT_CHECKPOINTS` are kept with
  the whole log since the oldest of them, so that a damaged blob costs nothing but replay.
- A checkpoint's row is written after its blob is on the disk, and a blob is removed after its last row is.

All methods block; the server calls those that write from one thread of their own.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec
import sqlalchemy as sql
from msgspec import Raw
from sqlalchemy.exc import DatabaseError

from engine.wire import Entry

SCHEMA_VERSION = 2
APPLICATION_ID = 0x52494E47  # "RING", SQLite's application_id
KEPT_CHECKPOINTS = 2

_metadata = sql.MetaData()
_labs = sql.Table(
    "labs",
    _metadata,
    sql.Column("id", sql.String(40), primary_key=True),
    sql.Column("origin", sql.String(8), nullable=False),
    sql.Column("name", sql.String(40), nullable=False),
    sql.Column("created", sql.Integer, nullable=False),  # seconds since 1970, UTC
    sql.Column("changed", sql.Integer, nullable=False),
    sql.Column("revision", sql.Integer, nullable=False),
    sql.Column(
        "document", sql.LargeBinary, nullable=False
    ),  # MessagePack; empty until the engine made the lab
)
_log = sql.Table(
    "log",
    _metadata,
    sql.Column("lab", sql.ForeignKey("labs.id", ondelete="CASCADE"), primary_key=True),
    sql.Column("revision", sql.Integer, primary_key=True),
    sql.Column("position", sql.Integer, nullable=False),
    sql.Column("command", sql.LargeBinary, nullable=False),  # MessagePack
)
_checkpoints = sql.Table(
    "checkpoints",
    _metadata,
    sql.Column("id", sql.Integer, primary_key=True, autoincrement=True),
    sql.Column("lab", sql.ForeignKey("labs.id", ondelete="CASCADE"), nullable=False, index=True),
    sql.Column("revision", sql.Integer, nullable=False),
    sql.Column("position", sql.Integer, nullable=False),
    sql.Column("digest", sql.String(64), nullable=False, index=True),
    sql.Column("size", sql.Integer, nullable=False),
)


_comparisons = sql.Table(
    "comparisons",
    _metadata,
    sql.Column("id", sql.String(40), primary_key=True),
    sql.Column("lab", sql.ForeignKey("labs.id", ondelete="CASCADE"), nullable=False, index=True),
    sql.Column("created", sql.Integer, nullable=False),  # seconds since 1970, UTC
    sql.Column("content", sql.LargeBinary, nullable=False),  # MessagePack, webapp.comparisons.Comparison
)


class StoreError(Exception):
    """The data folder cannot be used; the message is for the person who started the server."""


@dataclass(frozen=True, slots=True)
class LabRow:
    """A lab as the list of labs shows it."""

    id: str
    origin: str
    name: str
    created: int
    changed: int
    revision: int
    document: bytes


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """A comparison that was carried out in a lab."""

    id: str
    lab: str
    created: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Change:
    """An accepted command of a lab, with the document after it and the lab's name in that document."""

    lab: str
    entry: Entry
    document: bytes
    name: str


@dataclass(frozen=True, slots=True)
class Saved:
    """A lab as it can be had again: a checkpoint (None: as it was made), the revision it is of, and the log
    after it.
    """

    checkpoint: bytes | None
    revision: int
    log: list[Entry]


class Store:
    """The data folder, opened. Raises StoreError when it is in use, newer than this program, or not ours."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = _lock(folder / "lock")
        except OSError as error:
            raise StoreError(f"The data folder {folder} cannot be used: {error.strerror}.") from error
        self._blobs = folder / "blobs"
        self._engine = sql.create_engine(f"sqlite:///{folder / 'ringside.sqlite'}")
        sql.event.listen(self._engine, "connect", _prepare)
        try:
            self._open()
        except (DatabaseError, StoreError) as error:
            self.close()
            if isinstance(error, StoreError):
                raise
            raise StoreError(
                f"{folder / 'ringside.sqlite'} is not a Ringside database: {error.orig}."
            ) from error

    def _open(self) -> None:
        with self._engine.begin() as connection:
            version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
            application = connection.exec_driver_sql("PRAGMA application_id").scalar_one()
            if application not in (0, APPLICATION_ID):
                raise StoreError(f"{self.folder / 'ringside.sqlite'} belongs to another program.")
            if version > SCHEMA_VERSION:
                raise StoreError(
                    f"The labs in {self.folder} were kept by a newer Ringside (schema {version}; "
                    f"up to {SCHEMA_VERSION}). Start that version, or choose another folder with --data."
                )
            if version < SCHEMA_VERSION:
                _metadata.create_all(connection)  # each version so far has added tables and changed none
                connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def close(self) -> None:
        self._engine.dispose()
        self._lock.close()

    def secret_key(self) -> bytes:
        """The key that signs sessions: made once, readable by its owner only."""
        path = self.folder / "secret-key"
        with suppress(FileNotFoundError):
            key = path.read_bytes()
            if len(key) == 32:
                return key
        key = secrets.token_bytes(32)
        _write_whole(path, key)
        return key

    # -- labs ------------------------------------------------------------------------------------------
    def labs(self) -> list[LabRow]:
        """Every lab, oldest first."""
        with self._engine.connect() as connection:
            return [
                LabRow(*row)
                for row in connection.execute(sql.select(_labs).order_by(_labs.c.created, _labs.c.id))
            ]

    def lab(self, lab: str) -> LabRow | None:
        with self._engine.connect() as connection:
            row = connection.execute(sql.select(_labs).where(_labs.c.id == lab)).first()
        return None if row is None else LabRow(*row)

    def create(self, lab: str, origin: str, name: str) -> None:
        """Keep a new lab. Raises ValueError when the id is taken."""
        now = int(time.time())
        with self._engine.begin() as connection:
            try:
                connection.execute(
                    _labs.insert().values(
                        id=lab, origin=origin, name=name, created=now, changed=now, revision=0, document=b""
                    )
                )
            except sql.exc.IntegrityError as error:
                raise ValueError(f"there is a lab {lab} already") from error

    def describe(self, lab: str, document: bytes, name: str) -> None:
        """Keep the document of a lab that was opened (it had none before the engine made it)."""
        with self._engine.begin() as connection:
            connection.execute(_labs.update().where(_labs.c.id == lab).values(document=document, name=name))

    # -- changes ---------------------------------------------------------------------------------------
    def commit(self, changes: Sequence[Change]) -> None:
        """Keep accepted commands and the documents after them, all or none. A later change of a lab
        supersedes its document.
        """
        now = int(time.time())
        with self._engine.begin() as connection:
            connection.execute(
                _log.insert(),
                [
                    {
                        "lab": change.lab,
                        "revision": change.entry.revision,
                        "position": change.entry.position,
                        "command": bytes(change.entry.command),
                    }
                    for change in changes
                ],
            )
            for change in {change.lab: change for change in changes}.values():
                connection.execute(
                    _labs.update()
                    .where(_labs.c.id == change.lab)
                    .values(
                        revision=change.entry.revision,
                        document=change.document,
                        name=change.name,
                        changed=now,
                    )
                )

    def checkpoint(self, lab: str, revision: int, position: int, content: bytes) -> None:
        """Keep a checkpoint and let go what it makes superfluous."""
        digest = hashlib.sha256(content).hexdigest()
        if self._read(digest) is None:
            _write_whole(self._blob(digest), content)
        with self._engine.begin() as connection:
            connection.execute(
                _checkpoints.insert().values(
                    lab=lab, revision=revision, position=position, digest=digest, size=len(content)
                )
            )
            mine = _checkpoints.c.lab == lab
            kept = connection.execute(
                sql.select(_checkpoints.c.id, _checkpoints.c.revision)
                .where(mine)
                .order_by(_checkpoints.c.id.desc())
                .limit(KEPT_CHECKPOINTS)
            ).all()
            old = mine & (_checkpoints.c.id < kept[-1].id)
            dropped = connection.execute(sql.select(_checkpoints.c.digest).where(old)).scalars().all()
            connection.execute(_checkpoints.delete().where(old))
            if len(kept) == KEPT_CHECKPOINTS:
                connection.execute(
                    _log.delete().where((_log.c.lab == lab) & (_log.c.revision <= kept[-1].revision))
                )
        self._forget(dropped)

    def saved(self, lab: str) -> Saved | None:
        """The lab from its newest readable checkpoint on; None when it has some and their files are all damaged. Raises
        KeyError when there is no such lab."""
        with self._engine.connect() as connection:
            if connection.execute(sql.select(_labs.c.id).where(_labs.c.id == lab)).first() is None:
                raise KeyError(lab)
            checkpoints = connection.execute(
                sql.select(_checkpoints).where(_checkpoints.c.lab == lab).order_by(_checkpoints.c.id.desc())
            ).all()
            content, revision = None, 0
            for row in checkpoints:
                content = self._read(row.digest)
                if content is not None:
                    revision = row.revision
                    break
            if checkpoints and content is None:
                return None
            rows = connection.execute(
                sql.select(_log.c.revision, _log.c.position, _log.c.command)
                .where((_log.c.lab == lab) & (_log.c.revision > revision))
                .order_by(_log.c.revision)
            ).all()
        return Saved(content, revision, [Entry(row.revision, row.position, Raw(row.command)) for row in rows])

    # -- comparisons -------------------------------------------------------------------------------------
    def keep_comparison(self, lab: str, comparison: str, content: bytes) -> None:
        with self._engine.begin() as connection:
            connection.execute(
                _comparisons.insert().values(id=comparison, lab=lab, created=int(time.time()), content=content)
            )

    def comparisons(self, lab: str) -> list[ComparisonRow]:
        """Those of a lab, oldest first."""
        with self._engine.connect() as connection:
            asked = sql.select(_comparisons).where(_comparisons.c.lab == lab)
            rows = connection.execute(asked.order_by(_comparisons.c.created, _comparisons.c.id))
            return [ComparisonRow(*row) for row in rows]

    def drop_comparison(self, lab: str, comparison: str) -> None:
        with self._engine.begin() as connection:
            connection.execute(
                _comparisons.delete().where((_comparisons.c.lab == lab) & (_comparisons.c.id == comparison))
            )

    # -- blobs -----------------------------------------------------------------------------------------
    def _blob(self, digest: str) -> Path:
        return self._blobs / digest[:2] / digest

    def _read(self, digest: str) -> bytes | None:
        with suppress(OSError):
            content = self._blob(digest).read_bytes()
            if hashlib.sha256(content).hexdigest() == digest:
                return content
        return None

    def _forget(self, digests: Sequence[str]) -> None:
        for digest in set(digests):
            with self._engine.connect() as connection:
                used = connection.execute(
                    sql.select(_checkpoints.c.id).where(_checkpoints.c.digest == digest)
                ).first()
            if used is None:
                self._blob(digest).unlink(missing_ok=True)


def document_name(document: bytes) -> str:
    """The lab's name in a document (MessagePack)."""
    return msgspec.msgpack.decode(document, type=_Named).name


class _Named(msgspec.Struct):
    name: str


def _lock(path: Path) -> IO[str]:
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise StoreError(
            f"Another Ringside (process {holder}) is using {path.parent}. End it first, "
            "or choose another folder with --data."
        ) from error
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _prepare(connection: sql.engine.interfaces.DBAPIConnection, _record: object) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "busy_timeout = 5000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _write_whole(path: Path, content: bytes) -> None:
    """`content` under `path`, wholly or not at all, on the disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
    for folder in (path.parent, path.parent.parent):  # the name, and the folder's when it is new
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
