"""One script a client: the same ten turns, each read by the client's own types. `python -m tests.e2e.clients.X URL`."""
