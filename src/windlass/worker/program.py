"""A worker as the main thing of its process: signals govern it, and it ends with its parent."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack

from windlass.worker.parent import ParentLink
from windlass.worker.signals import handle_signals
from windlass.worker.worker import Worker

__all__ = ["run_as_program"]


async def run_as_program(worker: Worker, quarantine: Sequence[str] | None = None) -> None:
    """Run *worker* until a signal stops it (or ``worker.stop``, outside of the main thread).

    *quarantine* is the command that starts a process for suspects (``Worker.quarantine_command``).
    Raises what :meth:`Worker.run` raises.
    """
    link = ParentLink.find()
    worker.as_program(None if link is None else link.announce)
    worker.quarantine_command = quarantine
    if link is not None:
        link.watch(worker.stop)
    with ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
            stack.callback(handle_signals(worker))
        await worker.run()
