"""Exporters that `soprano-export` runs as child processes: one JSON request in, JSON lines out."""

PROTOCOL = 2
"""Version of the request and event format; a request that names another one is refused."""
