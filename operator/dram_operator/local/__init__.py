"""The operator's plan, carried out by processes of this machine."""
