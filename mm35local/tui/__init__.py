"""The terminal chat: an HTTP client of the server. It knows nothing of engines, models or tokens."""
