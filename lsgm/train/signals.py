"""What watches over the steps: signals that end them, numbers that are not finite, and the clocks."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import Tensor

from lsgm.errors import UserError
from lsgm.train.stage import Losses

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

PHASES = ("data", "forward", "backward", "optimiser")
"""The parts of a step, in order; clipping, the average and the finite check count as optimiser."""


def signal_name(number: int) -> str:
    """Return what people call a signal."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


class Interrupt:
    """A context in which SIGINT and SIGTERM are noted in `signal` (0: none) instead of ending the process.

    The step is then finished and saved first. The second signal ends the process with status 128 + number
    there and then: what is on the disk is whole, because every write is atomic. torchrun passes on to its
    workers the Ctrl-C that the terminal has already sent them, so under torchrun an echo within two seconds
    does not count.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._since = 0.0
        self._echo = 2.0 if "TORCHELASTIC_RUN_ID" in os.environ else 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        # Python delivers signals to the main thread only, and lets no other thread set handlers.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # os.write, because print may be interrupted in the middle of itself.
        if self.signal == 0:
            self.signal, self._since = number, time.monotonic()
            os.write(2, b"\nlsgm: finishing the step and saving; Ctrl-C again quits at once\n")
        elif time.monotonic() - self._since >= self._echo:
            os.write(2, b"\nlsgm: quit; the newest checkpoint is whole\n")
            os._exit(128 + number)


class TrainingError(UserError):
    """Training ran into a loss or a gradient that is not finite."""


class FiniteGuard:
    """Watches the scalars of each step: the loss terms, the total, the groups' gradient norms, in this order.

    On the CPU the verdict is the current step's, before the weights move. On a GPU the scalars travel to
    pinned memory beside the computation and the verdict is on the step before, so that no step waits for the
    device; with `wait` it is on the current one, and nothing is saved without that.
    """

    def __init__(self, groups: Sequence[str]) -> None:
        self._groups = [f"the gradient norm of '{name}'" for name in groups]
        self._names: list[str] = []
        self._pending: list[tuple[int, Tensor, torch.cuda.Event | None]] = []
        self.verdict: tuple[int, int, str] | None = None
        """Step, place in the order above and sentence of the first number found not finite."""

    def watch(self, step: int, losses: Losses, norms: Sequence[Tensor]) -> Tensor:
        """Take in step `step`'s scalars and return them as one detached float64 vector on their device."""
        if not self._names:
            terms = [f"the term '{name}'" for name in losses.terms]
            self._names = [*terms, "the loss 'total'", *self._groups]
        scalars = [*losses.terms.values(), losses.total, *norms]
        values = torch.stack([scalar.detach().double().to(losses.total.device) for scalar in scalars])
        if values.is_cuda:
            host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            host.copy_(values, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
            self._pending.append((step, host, event))
        else:
            self._pending.append((step, values, None))
        return values

    def bad(self, *, wait: bool = False) -> bool:
        """Return whether something was not finite; `verdict` then says at which step and what."""
        while len(self._pending) > (0 if wait or self._immediate() else 1):
            step, values, event = self._pending.pop(0)
            if event is not None:
                event.synchronize()
            if self.verdict is None and not bool(torch.isfinite(values).all()):
                numbers = values.tolist()
                first = next(i for i, value in enumerate(numbers) if not math.isfinite(value))
                sentence = f"at step {step} {self._names[first]} became {numbers[first]}"
                self.verdict = (step, first, sentence)
        return self.verdict is not None

    def _immediate(self) -> bool:
        return bool(self._pending) and self._pending[0][2] is None


class StepTimer:
    """Seconds per phase, summed over steps; the first `skip` steps (compilation, caches) do not count.

    On a GPU every mark waits for the device: what the phases cost is true, the sum is a little slower than
    training without a timer.
    """

    def __init__(self, *, skip: int = 0) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.steps = 0
        self._skip = skip
        self._last = 0.0

    def start(self) -> None:
        """Begin a step."""
        self._last = self._now()

    def mark(self, phase: str) -> None:
        """End a phase, and with the last one the step."""
        now = self._now()
        if self._skip == 0:
            self.seconds[phase] += now - self._last
        self._last = now
        if phase == PHASES[-1]:
            self.steps += self._skip == 0
            self._skip = max(self._skip - 1, 0)

    def shares(self) -> dict[str, float]:
        """Return each phase's share of the time, in [0, 1]."""
        total = sum(self.seconds.values())
        return {phase: value / total if total else 0.0 for phase, value in self.seconds.items()}

    @property
    def steps_per_second(self) -> float:
        """Steps counted over seconds counted."""
        total = sum(self.seconds.values())
        return self.steps / total if total else 0.0

    def _now(self) -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()


class TrainingClock:
    """Seconds spent on training steps: stands still while validating, logging and saving.

    It goes on from ``elapsed`` seconds of the wall clock; ``cpu()`` counts this process's processor time, all
    threads together, from 0.
    """

    def __init__(self, elapsed: float = 0.0) -> None:
        self._elapsed, self._cpu_elapsed = elapsed, 0.0
        self._since, self._cpu_since = time.perf_counter(), time.process_time()
        self._stands = False

    def read(self) -> float:
        """Return the training seconds up to now."""
        return self._elapsed + (0.0 if self._stands else time.perf_counter() - self._since)

    def cpu(self) -> float:
        """Return the processor's seconds of training since this clock was made."""
        return self._cpu_elapsed + (0.0 if self._stands else time.process_time() - self._cpu_since)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do something that is not training."""
        self._elapsed, self._cpu_elapsed = self.read(), self.cpu()
        self._stands = True
        try:
            yield
        finally:
            self._since, self._cpu_since = time.perf_counter(), time.process_time()
            self._stands = False
