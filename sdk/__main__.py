"""python -m boardfit: the command line."""

import sys

from boardfit.cli import entry

sys.exit(entry())
