"""`python -m dram_operator.cli`."""

from dram_operator.cli import main

main()
