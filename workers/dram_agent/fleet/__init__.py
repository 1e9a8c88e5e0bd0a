"""Devices that are not there: what they are like, in a file, and agents that behave like it and speak the real protocol."""
