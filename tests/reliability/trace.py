"""Was everything on the disk before it was answered? Judged from the system calls of the process.

A job that was accepted lies in a page that was written to the log of the database (the WAL). An answer
is durable if a sync of that log began after this write and ended before the answer was sent.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

__all__ = ["Verdict", "can_trace", "judge", "strace"]

_CALLS = "pwrite64,fdatasync,fsync,write,writev,sendto,sendmsg"
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_LINE = re.compile(r"(\d+) +(?:<\.\.\. )?(\w+)(?: resumed>)?\(?(?:\d+<([^>]*)>)?(.*)")


def strace(output: Path) -> list[str]:
    """The command that runs another one and writes down what is to be judged."""
    return ["strace", "-f", "-y", "-s", "9000", "-e", f"trace={_CALLS}", "-e", "signal=none",
            "--seccomp-bpf", "-o", str(output)]  # fmt: skip


@cache
def can_trace() -> bool:
    """Whether strace is there, and allowed."""
    return shutil.which("strace") is not None and (
        subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True).returncode == 0
    )


class Verdict(NamedTuple):
    """What a trace tells."""

    answered: int
    """Jobs whose acceptance was told to somebody."""
    syncs: int
    """Of the log."""
    too_early: list[str]
    """Jobs that were answered before they were on the disk."""


def judge(lines: Iterable[str]) -> Verdict:
    """Follow what was written, what was synced, and what was answered when."""
    written: set[str] = set()
    durable: set[str] = set()
    answered: dict[str, bool] = {}
    under_way: dict[str, tuple[str, set[str]]] = {}
    syncs = 0
    for line in lines:
        found = _LINE.match(line)
        if found is None:
            continue
        process, call, target, rest = found.groups()
        unfinished = rest.rstrip().endswith("<unfinished ...>")
        if "resumed>" in line:
            begun, covered = under_way.pop(process, ("", set[str]()))
            if begun == "write":
                written |= covered
            elif begun == "sync" and rest.rstrip().endswith("= 0"):
                syncs += 1
                durable |= covered
            continue
        is_log = (target or "").endswith("-wal")
        if call == "pwrite64" and is_log:
            ids = set(_ID.findall(rest))
            if unfinished:
                under_way[process] = ("write", ids)
            else:
                written |= ids
        elif call in ("fdatasync", "fsync") and is_log:
            if unfinished:
                under_way[process] = ("sync", set(written))
            elif rest.rstrip().endswith("= 0"):
                syncs += 1
                durable |= written
        elif _is_answer(call, target or "", rest):
            for job in _ID.findall(rest):
                answered.setdefault(job, job in durable)
    too_early = [job for job, in_time in answered.items() if not in_time]
    return Verdict(len(answered), syncs, too_early)


def _is_answer(call: str, target: str, rest: str) -> bool:
    """A line of the ledger that tells of an acceptance, or anything said to a client."""
    if call == "write" and target.endswith("/ledger"):
        return '"A ' in rest
    return call in ("write", "writev", "sendto", "sendmsg") and target.startswith(
        ("socket:", "TCP:")
    )
