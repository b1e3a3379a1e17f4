"""``python -m lsgm`` is the command ``lsgm``, which is how `torchrun -m` starts it."""

from __future__ import annotations

import os
import sys


def _start() -> int:
    """Run the command without the working directory on the import path, where ``python -m`` puts it first.

    The command ``lsgm`` has not got it either. A folder that somebody sent may hold a ``numpy.py``; where
    this package itself comes from stays.
    """
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    first = os.path.realpath(sys.path[0]) if sys.path and not sys.flags.safe_path else home
    if first == os.path.realpath(os.curdir) != os.path.realpath(home):
        del sys.path[0]
    from lsgm.cli import main

    return main()


if __name__ == "__main__":
    sys.exit(_start())
