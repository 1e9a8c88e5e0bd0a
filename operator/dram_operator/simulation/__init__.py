"""What a rollout's policy would do with an imagined fleet: the real `decide` on a virtual clock, and a plan of its cohorts."""
