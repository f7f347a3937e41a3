"""The memory store: the reference for all others.

``store`` holds the operations, one by one, as the port words them; ``table`` the rows and what is
kept in step with them; ``plan`` works an insert out before it is done; ``gates`` holds work back.
"""

from windlass.stores.memory.store import MemoryStore

__all__ = ["MemoryStore"]
