"""The HTTP server: a file per noun of the wire, one error mapping, one engine behind it."""
