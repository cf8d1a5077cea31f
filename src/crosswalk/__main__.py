"""``python -m crosswalk`` is the program ``crosswalk``."""

import sys

from crosswalk.cli import main

if __name__ == "__main__":
    sys.exit(main())
