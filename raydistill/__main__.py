"""`python -m raydistill`: the command line."""

import sys

from raydistill.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
