"""The SQLite store: jobs in one file, shared by any number of processes of one machine.

``store.py`` is the port's face. Writes go through ``writer.py``, one thread and one transaction for
all that waits at one moment; what they do is told by ``insert``, ``claim``, ``ack``, ``presence`` and
``control``, which keep the counts in ``book.py`` in step. Reads go through ``reader.py``. Around them:
``lock.py`` (between processes), ``wake.py`` (hints to other processes), ``files.py`` (opening,
checking, disk space), and the statements in ``queries.sql``.
"""

from windlass.stores.sqlite.store import SQLiteStore

__all__ = ["SQLiteStore"]
