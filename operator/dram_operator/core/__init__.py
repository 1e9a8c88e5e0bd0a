"""Pure decisions: data and a time in, data out. Nothing here talks to a cluster, a store or a clock."""
