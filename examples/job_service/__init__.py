"""A job service: six small tasks behind an HTTP API. ``windlass serve`` runs it when no app is named."""
