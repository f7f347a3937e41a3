"""``python -m windlass``: the command line, where the ``windlass`` program is not on the path."""

from __future__ import annotations

from windlass.cli import main

main()
