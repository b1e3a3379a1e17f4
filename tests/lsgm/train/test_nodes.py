"""torchrun on two nodes, which are network namespaces: a dead process, a restart, one result."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from beside import two
from train_toy import exact, weights

NODES = ("10.77.19.1", "10.77.19.2")
"""Addresses of the two nodes."""
SCRIPT = Path(__file__).with_name("of_a_node.py")
LAUNCH = "--nnodes 2 --nproc-per-node 1 --max-restarts 1 --rdzv-backend c10d"


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def nodes() -> Iterator[list[list[str]]]:
    """Yield for each of two nodes what a command is put behind to run there."""
    if shutil.which("ip") is None or os.geteuid():
        pytest.skip("network namespaces need `ip` and root")
    names = [f"lsgm{os.getpid()}{end}" for end in "ab"]
    links = [f"v{os.getpid()}{end}" for end in "ab"]
    try:
        ip("netns", "add", names[0])
        ip("netns", "add", names[1])
        ip("link", "add", links[0], "type", "veth", "peer", "name", links[1])
        for name, link, address in zip(names, links, NODES, strict=True):
            ip("link", "set", link, "netns", name)
            ip("-n", name, "addr", "add", f"{address}/24", "dev", link)
            ip("-n", name, "link", "set", link, "up")
            ip("-n", name, "link", "set", "lo", "up")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
    try:
        setting = [f"GLOO_SOCKET_IFNAME={link}" for link in links]
        yield [["ip", "netns", "exec", name, "env", word] for name, word in zip(names, setting, strict=True)]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False)


def test_two_nodes_lose_a_process_start_again_and_end_with_the_weights_of_one(
    nodes: list[list[str]], tmp_path: Path
) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    logs = [tmp_path / f"node-{index}.txt" for index in range(2)]
    running = []
    for index, (node, address) in enumerate(zip(nodes, NODES, strict=True)):
        launch = [sys.executable, "-m", "torch.distributed.run", *LAUNCH.split()]
        # torchrun would know the first node by its host's name, which both have here.
        where = ["--rdzv-endpoint", f"{NODES[0]}:29517", "--local-addr", address]
        where += ["--rdzv-conf", f"is_host={int(index == 0)}"]
        words = [*node, *launch, *where, str(SCRIPT), str(tmp_path / "run")]
        with logs[index].open("w") as log:
            running.append(subprocess.Popen(words, env=environment, stdout=log, stderr=log))
    try:
        assert [process.wait(timeout=200) for process in running] == [0, 0], logs[0].read_text()
    finally:
        for process in running:
            process.kill()
    said = "".join(log.read_text() for log in logs)
    assert said.count("has died; this process stops too") == 1
    assert "rank 1 of 2 (process" in said
    two(exact, tmp_path / "whole", 0.0, 1e9, folder=tmp_path / "one")
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")
