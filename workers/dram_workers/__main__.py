"""`python -m dram_workers KIND --config FILE`."""

import sys

from dram_workers.entry import main

sys.exit(main())
