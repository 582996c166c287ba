"""``python -m gabactl``."""

import sys

from gabactl.cli import main

if __name__ == "__main__":
    sys.exit(main())
