"""The server as its clients meet it: real processes, real sockets, a client that shares no code with it."""
