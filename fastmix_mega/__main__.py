"""`python -m fastmix_mega VERB ...`: the `fastmix` command, for torchrun."""

import sys

from fastmix_mega.cli.entry import main

sys.exit(main())
