"""Whether the other processes of a run are alive, so that none waits for a dead one.

Every process keeps one connection to the first one. The system closes it with the process, however that ends,
and probes it while nothing is said, so that a machine that is gone is found too. Nothing hangs on a clock: a
process that is busy, or stopped for a while, is alive. Whoever learns of a death says whose it was and ends
its process at once, because what it is waiting for in some collective will never come.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

from lsgm.errors import ConfigError
from lsgm.files.names import shown

LOST = 75
"""Exit status of a process that stops because another one has: a temporary failure, to be tried again."""
PROBE = (5, 3, 4)
"""Seconds of silence before a connection is probed, seconds between probes, probes without an answer."""
GRACE = 5.0
"""Seconds that a process has to end by itself, where another one says what ended it."""
SETTLING = 1.0
"""Seconds within which the system tells of a death, so that it is named in place of what it led to."""
LONGEST = 4000
"""Bytes of a line at most."""

GO_ON = "this process stops too: the same command goes on from what is saved"


class Peers:
    """This process's connection to the first one, or as the first one all of them, with a thread that reads.

    ``gather`` returns every process's item in the order of their ranks. Lines go both ways: ``left`` from a
    process that is done, ``failed WHY`` from one that an error ends, ``lost SENTENCE`` from the first one to
    all. A connection that closes without any is a death.
    """

    def __init__(self, rank: int, size: int, host: str, gather: Callable[[Any], list[Any]]) -> None:
        """Connect; ``host`` is where the first process is reached."""
        self.rank, self._size = rank, size
        self._selector = selectors.DefaultSelector()
        self._said: dict[int, bytes] = {}
        self._ended: set[int] = set()
        self._links: dict[int, socket.socket] = {}
        self.blamed = ""
        """What is known of another process's error."""
        listener = _listening(size) if rank == 0 else None
        token = secrets.token_hex(16)
        mine = (socket.gethostname(), os.getpid(), listener.getsockname()[1] if listener else 0, token)
        every = gather(mine)
        self._names = [f"rank {r} of {size} (process {e[1]} on {e[0]})" for r, e in enumerate(every)]
        port, token = every[0][2:]
        if listener is None:
            link = self._connected(host, port)
            link.sendall(f"{token} {rank}\n".encode())
            self._add(0, link)
        else:
            with listener:
                self._accept(listener, token)
        gather(None)  # nobody works before all are connected
        os.register_at_fork(after_in_child=self._forget)
        self._thread = threading.Thread(target=self._listen, name="lsgm-peers", daemon=True)
        self._thread.start()

    def failed(self, why: str) -> None:
        """Tell the others what ends this process."""
        self._tell(f"failed {why}")

    def leave(self) -> None:
        """Tell the others that this process is done and needs nobody any more."""
        self._tell("left")
        self._forget()

    def _connected(self, host: str, port: int) -> socket.socket:
        try:
            return socket.create_connection((host, port), timeout=60)
        except OSError as error:
            raise ConfigError(
                f"{self._names[self.rank]} cannot reach the first process at {host}, port {port} "
                f"({error.strerror or error}); open the ports of these machines to one another"
            ) from error

    def _accept(self, listener: socket.socket, token: str) -> None:
        listener.settimeout(60)
        while len(self._links) < self._size - 1:
            link, _ = listener.accept()
            link.settimeout(60)
            line = b""
            with contextlib.suppress(OSError):
                while not line.endswith(b"\n") and len(line) < 64 and (piece := link.recv(1)):
                    line += piece
            said, _, rank = line.decode(errors="replace").strip().partition(" ")
            if secrets.compare_digest(said.encode(), token.encode()) and rank.isdecimal():
                self._add(int(rank), link)
            else:  # something else that tries ports
                link.close()

    def _add(self, rank: int, link: socket.socket) -> None:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in zip(("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT"), PROBE, strict=True):
            if hasattr(socket, name):
                link.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        link.settimeout(None)
        self._links[rank], self._said[rank] = link, b""
        self._selector.register(link, selectors.EVENT_READ, rank)

    def _listen(self) -> None:
        while self._links.keys() - self._ended:
            for key, _ in self._selector.select():
                with contextlib.suppress(KeyError):  # this process leaves meanwhile
                    self._read(key.data)

    def _read(self, rank: int) -> None:
        link = self._links[rank]
        try:
            piece = link.recv(LONGEST)
        except OSError:  # reset, or no probe was answered
            piece = b""
        *lines, self._said[rank] = (self._said[rank] + piece).split(b"\n")
        for line in lines:
            self._hear(rank, line.decode(errors="replace"))
        if not piece:
            self._selector.unregister(link)
            if rank not in self._ended:
                self._lost(f"{self._names[rank]} has died; {GO_ON}")

    def _hear(self, rank: int, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word in ("left", "failed"):
            self._ended.add(rank)
        if word == "failed":
            sentence = f"{self._names[rank]} was ended by an error: {rest}"
            if self.rank == 0:
                self._tell(f"lost {sentence}", but=rank)
            # Where all are ended by one error, each says so itself.
            self.blamed = sentence
            time.sleep(GRACE)
            self.end(sentence)
        if word == "lost":
            self._lost(rest)

    def _lost(self, sentence: str) -> NoReturn:
        if self.rank == 0:
            self._tell(f"lost {sentence}")
        self.end(sentence)

    def end(self, sentence: str) -> NoReturn:
        """Say a sentence and end this process there and then."""
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        # Past the logger, which the main thread may be about to close; and beneath a bar that stands there.
        os.write(2, f"\nlsgm: {shown(sentence)}\n".encode(errors="backslashreplace"))
        os._exit(LOST)

    def _tell(self, line: str, but: int | None = None) -> None:
        whole = line.replace("\n", " ").encode()[: LONGEST - 1] + b"\n"
        for rank, link in list(self._links.items()):
            if rank != but:
                with contextlib.suppress(OSError):
                    link.sendall(whole)

    def _forget(self) -> None:
        """Close this process's ends, which a forked child has too and would hold open beyond its parent."""
        links, self._links = self._links, {}
        for link in links.values():
            with contextlib.suppress(OSError):
                link.close()


def _listening(size: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, backlog=size, dualstack_ipv6=True)
    return socket.create_server(("", 0), backlog=size)


_peers: list[Peers] = []
"""The one watch of this process, where it has joined others."""


def watch(rank: int, size: int, host: str, gather: Callable[[Any], list[Any]]) -> None:
    """Watch over the other processes until `leave`."""
    _peers.append(Peers(rank, size, host, gather))


def leave() -> None:
    """End the watch; an error that nobody has caught is told to the others."""
    error = getattr(sys, "last_value", None)
    if error is not None:
        failed(f"{type(error).__name__}: {error}", foreseen=False)
    while _peers:
        _peers.pop().leave()


def failed(sentence: str, *, foreseen: bool) -> None:
    """Tell the others what ends this process, where there are others.

    An error that was not ``foreseen`` may be no more than what the death of another process led to: a moment
    is then left to the watch, which names it and ends this process.
    """
    if _peers:
        if not foreseen:
            time.sleep(SETTLING)
            if _peers[0].blamed:
                _peers[0].end(_peers[0].blamed)
        _peers[0].failed(sentence)
