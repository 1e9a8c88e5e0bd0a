"""The only rooms that know a client library: plain data on this side, the outside world on the other."""
