"""``python -m rsovlib`` is the command ``rsovlib``."""

from __future__ import annotations

import sys

from rsovlib.cli import main

if __name__ == "__main__":
    sys.exit(main())
