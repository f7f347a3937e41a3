"""The worker: claims jobs, runs them, and says what came of them. See ``worker.py`` for the whole."""

from __future__ import annotations

from windlass.worker.options import WorkerOptions
from windlass.worker.program import run_as_program
from windlass.worker.supervisor import Supervisor
from windlass.worker.worker import Worker

__all__ = ["Supervisor", "Worker", "WorkerOptions", "run_as_program"]
