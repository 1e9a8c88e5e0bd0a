"""The pure half of EdgeRollout: from what devices tell to what is to be done."""
