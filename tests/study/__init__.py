"""Studies: longer comparisons whose tables stand in docs/design. Not part of `make bench`."""
