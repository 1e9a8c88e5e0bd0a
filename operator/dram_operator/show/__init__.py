"""How jobs and rollouts look on a terminal: pure functions from a status to what rich prints, for local runs and clusters alike."""
