"""python -m boardfit: the command line."""

import sys

from boardfit.cli import main

sys.exit(main())
