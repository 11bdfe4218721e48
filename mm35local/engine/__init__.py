"""The engine: token ids in, events out. It owns the worker process; it never sees text, roles, JSON or HTTP."""
