"""``python -m upright.cli``."""

import sys

from .app import main

sys.exit(main())
