"""`python -m skal`, the same as the command `skal`."""

import sys

from skal.cli.cli import main

if __name__ == "__main__":
    sys.exit(main())
