"""``python -m tune sweep ...``: the command line of ``nfbmr``, for a plain ``ray job submit``."""

import sys

from nfbmr.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
