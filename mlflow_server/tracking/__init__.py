"""The tracking client: a journal, and what sends it to a server."""
