"""`python -m veldt` is `veldt`."""

import sys

from veldt import cli

if __name__ == "__main__":
    sys.exit(cli.main())
