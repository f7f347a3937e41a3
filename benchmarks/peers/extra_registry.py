"""Windlass as a candidate of the peer harness; see the README one folder up."""

VENVS = {"windlass": {"path": ".venv", "show": ["windlass", "uvloop"]}}

PEERS = {
    "windlass-sqlite": {
        "adapter": "windlass_app",
        "venv": "windlass",
        "server": "none",
        "worker": [["{py}", "launch.py", "windlass_app", "worker", "--conc", "{conc}"]],
        "note": "1 worker process, concurrency 100, synchronous=FULL, finished jobs are kept",
    },
}
