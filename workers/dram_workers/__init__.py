"""Dram's workers: the stages of a distillation, each one a process that turns inputs into a content-addressed folder."""
