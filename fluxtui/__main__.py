"""`python -m fluxtui`: the same as the command `fluxtui`."""

import sys

from fluxtui.cli import main

if __name__ == "__main__":
    sys.exit(main())
