"""``python -m nfbmr ...``: the command ``nfbmr``, for where its script is not on the path."""

import sys

from nfbmr.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
