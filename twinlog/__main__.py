"""``python -m twinlog``: the ``twinlog`` command."""

import sys

from twinlog.cli import main

if __name__ == "__main__":
    sys.exit(main())
