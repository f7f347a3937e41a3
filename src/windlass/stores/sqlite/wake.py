"""Hints between processes: one Unix datagram socket for each store that listens.

They lie in a directory beside the database (or, when that path is too long for a socket's address,
in the directory for temporary files), and a socket's name says which kinds it wants. Whoever commits
sends at most one datagram to each of the others and never waits: a full or dead socket loses a hint,
and all who listen poll as well. Listeners in the same store are called directly.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Final

import msgspec

from windlass.store import Notice, NoticeKind

__all__ = ["Wake"]

_LETTERS: Final[dict[NoticeKind, str]] = {"ready": "r", "cancel": "c", "changed": "x"}
_KINDS = {letter: kind for kind, letter in _LETTERS.items()}
_NAME_BYTES = 16
_ADDRESS_BYTES = 100
"""A socket's address has 108 bytes on Linux, 104 elsewhere."""
_MOST_IDS = 1000
_DATAGRAM = 1 << 17
_SETTLED = 0.05
"""Seconds after which a directory's modification time can be trusted to show the next change."""

_decode = msgspec.json.Decoder(list[Notice]).decode


class _Listener:
    __slots__ = ("callback", "kinds", "loop")

    def __init__(self, kinds: frozenset[NoticeKind], callback: Callable[[Notice], None]) -> None:
        self.kinds = kinds
        self.callback = callback
        self.loop = asyncio.get_running_loop()


class Wake:
    """Sends and receives the hints of one store; may be used from any thread."""

    def __init__(self, path: str) -> None:
        self._directory = _directory(path)
        self._lock = threading.Lock()
        self._listeners: list[_Listener] = []
        self._ear: _Ear | None = None
        self._sender: socket.socket | None = None
        self._peers: list[tuple[str, frozenset[NoticeKind]]] = []
        self._seen: int | None = None

    def listen(
        self, kinds: frozenset[NoticeKind], callback: Callable[[Notice], None]
    ) -> Callable[[], None]:
        """See :meth:`windlass.store.JobStore.listen`."""
        listener = _Listener(kinds, callback)
        with self._lock:
            self._listeners.append(listener)
            self._adjust()

        def end() -> None:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)
                    self._adjust()

        return end

    def close(self) -> None:
        """End all listening."""
        with self._lock:
            self._listeners.clear()
            self._adjust()
            if self._sender is not None:
                self._sender.close()
                self._sender = None

    def wanted(self) -> frozenset[NoticeKind]:
        """The kinds that anyone listens for, here or elsewhere."""
        self._look()
        own = [each.kinds for each in self._listeners]
        return frozenset().union(*own, *(kinds for _, kinds in self._peers))

    def tell(self, notices: list[Notice]) -> None:
        """Pass on what a commit changed."""
        if not notices:
            return
        self._dispatch(notices)
        for address, kinds in self._peers:
            theirs = [each for each in notices if each.kind in kinds]
            if theirs:
                self._send(address, theirs)

    # ------------------------------------------------------------------ hearing

    def _adjust(self) -> None:
        """Have an ear with the right name exactly while somebody listens."""
        kinds = frozenset[NoticeKind]().union(*(each.kinds for each in self._listeners))
        if self._ear is not None and self._ear.kinds != kinds:
            self._ear.close()
            self._ear = None
        if self._ear is None and kinds:
            # Without one, hints of other processes are lost; polling finds the work.
            with contextlib.suppress(OSError):
                _make_private(self._directory)
                self._ear = _Ear(self._directory, kinds, self._dispatch)

    def _dispatch(self, notices: list[Notice]) -> None:
        for listener in list(self._listeners):
            for notice in notices:
                if notice.kind in listener.kinds:
                    try:
                        listener.loop.call_soon_threadsafe(listener.callback, notice)
                    except RuntimeError:  # its loop was closed
                        with contextlib.suppress(ValueError):
                            self._listeners.remove(listener)
                        break

    # ------------------------------------------------------------------ sending

    def _look(self) -> None:
        """Notice who listens elsewhere: the directory's time changes with every socket in it."""
        try:
            seen = os.stat(self._directory).st_mtime_ns
        except OSError:
            self._peers, self._seen = [], None
            return
        if seen == self._seen:
            return
        own = self._ear.name if self._ear is not None else None
        with contextlib.suppress(OSError):
            self._peers = [
                (os.path.join(self._directory, name), _kinds(name))
                for name in os.listdir(self._directory)
                if name != own
            ]
            # The clock behind it ticks a few hundred times a second: look again until it is past.
            self._seen = seen if time.time_ns() - seen > _SETTLED * 1e9 else None

    def _send(self, address: str, notices: list[Notice]) -> None:
        for data in _datagrams(notices):
            try:
                if self._sender is None:
                    self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                    self._sender.setblocking(False)
                self._sender.sendto(data, address)
            except ConnectionRefusedError:  # whoever made it is gone
                with contextlib.suppress(OSError):
                    os.unlink(address)
                return
            except OSError:  # it is busy, or closing: a lost hint
                return


class _Ear:
    """A socket and the thread that reads it."""

    def __init__(
        self, directory: str, kinds: frozenset[NoticeKind], heard: Callable[[list[Notice]], None]
    ) -> None:
        self.kinds = kinds
        self.name = "".join(sorted(_LETTERS[kind] for kind in kinds)) + "-" + secrets.token_hex(4)
        self._path = os.path.join(directory, self.name)
        self._heard = heard
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._socket.bind(self._path)
        except OSError:
            self._socket.close()
            raise
        self._thread = threading.Thread(target=self._run, name="windlass-sqlite-wake", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with self._socket:
            while data := self._socket.recv(_DATAGRAM):
                with contextlib.suppress(msgspec.MsgspecError):
                    self._heard(_decode(data))

    def close(self) -> None:
        """Take the socket away, and wake the thread with an empty datagram to end it."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bell:
            bell.sendto(b"", self._path)
        with contextlib.suppress(OSError):
            os.unlink(self._path)


def _directory(path: str) -> str:
    beside = f"{path}-wake"
    if len(os.fsencode(beside)) + 1 + _NAME_BYTES <= _ADDRESS_BYTES:
        return beside
    digest = hashlib.blake2b(os.fsencode(path), digest_size=8).hexdigest()
    return os.path.join(tempfile.gettempdir(), f"windlass-{os.getuid()}-{digest}")


def _make_private(directory: str) -> None:
    """Create it for this user alone; refuse one that someone else prepared."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory, 0o700)
    found = os.lstat(directory)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(f"{directory!r} is not a directory of this user.")


def _kinds(name: str) -> frozenset[NoticeKind]:
    letters, _, _ = name.partition("-")
    return frozenset(_KINDS[letter] for letter in letters if letter in _KINDS)


def _datagrams(notices: list[Notice]) -> list[bytes]:
    """One as a rule; more when very many jobs are named."""
    if all(len(each.ids) <= _MOST_IDS for each in notices):
        return [msgspec.json.encode(notices)]
    return [
        msgspec.json.encode([Notice(each.kind, each.queues, each.ids[start : start + _MOST_IDS])])
        for each in notices
        for start in range(0, max(len(each.ids), 1), _MOST_IDS)
    ]
