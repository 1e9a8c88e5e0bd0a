"""Dram's control plane: the resources, the plan, and what carries it out on a cluster or on this machine."""
