"""The supervisor: N worker processes, started anew when they end, and buried when they die.

A child's death is seen here first. So its incarnation is declared dead at once and its jobs are taken
from it, where others would have to wait for its lease to run out. :class:`Quarantine` does the same for
the one process in which suspects run.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from random import Random

from windlass.errors import StoreError
from windlass.events import EventBus
from windlass.job import WorkerId
from windlass.retry import RetryPolicy
from windlass.spawn import Spawned, obituary
from windlass.store import Store
from windlass.worker.backoff import Backoff
from windlass.worker.maintenance import reclaim
from windlass.worker.presence import EXIT_STALLED, EXIT_STUCK

__all__ = ["Supervisor", "WorkerProcess"]

_STEADY = 10.0
"""Seconds after which a child counts as having started well."""
_HOPELESS = 3
"""So many children in a row that ended in failure before they registered: it is no use."""
_NOT_STARTED = 1
_AFTER_GRACE = 6.0
"""Seconds after the grace when children that are still there are killed."""


class WorkerProcess:
    """A worker in a process of its own, and the incarnations it told of."""

    def __init__(self, command: Sequence[str]) -> None:
        self.process = Spawned(command, group=True)
        self.worker: WorkerId | None = None
        """The latest incarnation; None: it has not registered yet."""
        self._heard = b""
        self.process.socket.setblocking(False)
        asyncio.get_running_loop().add_reader(self.process.socket, self._listen)

    async def wait(self) -> int:
        """Until it has ended; its exit code."""
        await self.process.gone.wait()
        self._listen()
        code = self.process.exit_code
        assert code is not None
        return code

    def close(self) -> None:
        """Let go of it: one that still runs sees its parent leave, and ends."""
        if self.process.socket.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self.process.socket)
            self.process.socket.close()

    async def bury(self, store: Store, rng: Random) -> None:
        """After its death: declare it dead, and take its jobs from it. Raises StoreError."""
        if self.worker is None:
            return
        await store.leave(self.worker, died=True)
        # What follows a worker's death does not depend on the tasks' policies.
        await reclaim(store, [], by=None, policies=lambda job: RetryPolicy(), rng=rng)

    def _listen(self) -> None:
        with suppress(OSError):
            while self.process.socket.fileno() >= 0 and (more := self.process.socket.recv(4096)):
                self._heard += more
            asyncio.get_running_loop().remove_reader(self.process.socket)
        *lines, self._heard = self._heard.split(b"\n")
        if lines:
            self.worker = WorkerId(lines[-1].decode())


class Supervisor:
    """Keeps *processes* processes of *command* running until it is told to stop.

    *on_death* is told of each child that dies, *on_refusal* when the system refuses to start one.
    The command is a worker that uses :class:`~windlass.worker.parent.ParentLink`, with the same
    *grace* as given here; ``windlass worker`` is one.
    """

    def __init__(
        self,
        command: Sequence[str],
        processes: int,
        store: Store,
        events: EventBus,
        *,
        grace: timedelta = timedelta(seconds=30),
        rng: Random | None = None,
        on_death: Callable[[int, str], None] = lambda pid, how: None,
        on_refusal: Callable[[str], None] = lambda why: None,
    ) -> None:
        self._command = list(command)
        self._count = processes
        self._store = store
        self._events = events
        self._grace = grace
        self._rng = rng or Random()
        self._on_death = on_death
        self._on_refusal = on_refusal
        self._children: list[WorkerProcess] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asked: list[Callable[[], None]] = []
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._hopeless = 0
        self._exit_code = 0

    @property
    def pids(self) -> list[int]:
        """The process ids of the children that run."""
        return [child.process.pid for child in self._children]

    def status(self) -> str:
        """One line for people."""
        state = "stopping" if self._stopping.is_set() else "running"
        return f"supervisor {state}: {len(self._children)} of {self._count} workers {self.pids}"

    def stop(self, grace: timedelta | None = None) -> None:
        """Have all children stop; a second call is passed on to them and shortens their grace."""
        self._ask(lambda: self._begin_stop(grace))

    def quiet(self) -> None:
        """Have all children claim nothing more."""
        self._ask(lambda: self._tell(signal.SIGUSR1))

    def resume(self) -> None:
        """Have all children claim again."""
        self._ask(lambda: self._tell(signal.SIGCONT))

    async def run(self) -> int:
        """Until stopped, or until all children have ended well; the exit code for this process."""
        self._loop = asyncio.get_running_loop()
        for asked in self._asked:
            asked()
        async with asyncio.TaskGroup() as group:
            keepers = [group.create_task(self._keep()) for _ in range(self._count)]
            killer = group.create_task(self._kill_the_late())
            try:
                await asyncio.wait(keepers)
            finally:
                killer.cancel()
        return self._exit_code

    async def _keep(self) -> None:
        """One child after another."""
        loop = asyncio.get_running_loop()
        backoff = Backoff("start a worker", EventBus(), self._rng, cap=10.0)
        while not self._stopping.is_set():
            began = loop.time()
            code, registered = await self._live()
            if code == 0 or self._stopping.is_set() or self._gave_up(code, registered):
                return
            if loop.time() - began > _STEADY or code in (EXIT_STUCK, EXIT_STALLED):
                backoff.succeeded()
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(backoff.failed(RuntimeError())):
                    await self._stopping.wait()

    async def _live(self) -> tuple[int, bool]:
        """One child from start to burial."""
        try:
            child = WorkerProcess(self._command)
        except OSError as error:
            self._on_refusal(error.strerror or str(error))
            # As long as others work, this may pass.
            return _NOT_STARTED, bool(self._children)
        self._children.append(child)
        try:
            code = await child.wait()
        except asyncio.CancelledError:
            # The supervisor itself is cancelled: no child may outlive it.
            await child.process.end()
            raise
        finally:
            self._children.remove(child)
            child.close()
        if code != 0:
            if not self._stopping.is_set():
                self._on_death(child.process.pid, obituary(code))
            await self._bury(child)
        return code, child.worker is not None

    async def _bury(self, child: WorkerProcess) -> None:
        backoff = Backoff("bury a worker", self._events, self._rng, cap=1.0)
        # Soon the lease has run out, and others see to it.
        for _ in range(10):
            try:
                await child.bury(self._store, self._rng)
            except StoreError as error:
                await asyncio.sleep(backoff.failed(error))
            else:
                backoff.succeeded()
                return

    def _gave_up(self, code: int, registered: bool) -> bool:
        """Whether it is no use to start another: they end before they have even begun."""
        self._hopeless = 0 if registered or code < 0 else self._hopeless + 1
        if self._hopeless >= _HOPELESS:
            self._exit_code = code
            self._begin_stop(None)
        return self._hopeless >= _HOPELESS

    async def _kill_the_late(self) -> None:
        await self._stopping.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._grace.total_seconds() + _AFTER_GRACE):
                await self._hurry.wait()
                await asyncio.sleep(_AFTER_GRACE)
        for child in self._children:
            child.process.kill()

    def _begin_stop(self, grace: timedelta | None) -> None:
        again = self._stopping.is_set()
        self._stopping.set()
        self._tell(signal.SIGTERM)
        if again:
            self._hurry.set()
        elif grace == timedelta(0):
            # Two signals of a kind at one moment would count as one.
            asyncio.get_running_loop().call_later(0.2, self._begin_stop, None)

    def _tell(self, number: int) -> None:
        for child in self._children:
            child.process.send(number)

    def _ask(self, function: Callable[[], None]) -> None:
        """Call *function* on the loop; as its first act, when it does not run yet."""
        if self._loop is None:
            self._asked.append(function)
            return
        with suppress(RuntimeError):  # the loop is closed, and all is over
            self._loop.call_soon_threadsafe(function)
