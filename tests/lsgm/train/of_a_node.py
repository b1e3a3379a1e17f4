"""What torchrun starts on each node of a test: a training, whose second process is killed the first time."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from train_toy import LONG, run_toy, two_stages

from lsgm.logs import speaking


def killed_once(call: int) -> float:
    """Kill the second process at the 31st step, unless it has been started again."""
    if call == 31 and os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    return 1.0


if __name__ == "__main__":
    with speaking():
        stages = two_stages(replace(LONG, checkpoint_every=0.02), dropout=0.0, hook=killed_once)
        run_toy(Path(sys.argv[1]), stages)
