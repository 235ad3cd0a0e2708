"""Trains on two pretended machines, each in a network namespace of its own, and compares with one process.
Needs root on Linux.

sudo python scripts/two_machines.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from lebm import checkpoint

SMALL = [
    "--trainer.max_steps=6",
    "--trainer.precision=64-true",
    "--trainer.callbacks=null",
    "--trainer.logger=false",
    "--trainer.enable_progress_bar=false",
    "--trainer.limit_val_batches=0",
    "--data.init_args.limit_train=400",
    "--model.init_args.likelihood.init_args.generator.init_args.hidden=[32]",
    "--model.init_args.prior.init_args.energy.init_args.hidden=[16]",
]


def shell(*words: str) -> None:
    subprocess.run(words, check=True)


def start(run: str, *more: str, space: str = "", **environment: str) -> subprocess.Popen:
    enter = ["ip", "netns", "exec", space] if space else []
    words = [*enter, sys.executable, "-m", "lebm", "fit", "-c", "quickstart", "--run_dir", run, *SMALL, *more]
    return subprocess.Popen(words, env={**os.environ, **environment})


def connect(spaces: list[str]) -> None:
    """A cable between two namespaces."""
    shell("ip", "link", "add", "lebm0", "type", "veth", "peer", "name", "lebm1")
    for number, space in enumerate(spaces):
        shell("ip", "link", "set", f"lebm{number}", "netns", space)
        shell("ip", "-n", space, "addr", "add", f"10.77.0.{number + 1}/24", "dev", f"lebm{number}")
        for device in ("lo", f"lebm{number}"):
            shell("ip", "-n", space, "link", "set", device, "up")


def main() -> None:
    spaces = ["lebm-first", "lebm-second"]
    for space in spaces:
        shell("ip", "netns", "add", space)
    try:
        connect(spaces)
        with tempfile.TemporaryDirectory() as folder:
            several = ("--trainer.num_nodes=2", "--trainer.devices=1", "--trainer.strategy=ddp")
            meeting = {"MASTER_ADDR": "10.77.0.1", "MASTER_PORT": "29500"}
            jobs = [
                start(
                    f"{folder}/two",
                    *several,
                    space=space,
                    **meeting,
                    NODE_RANK=str(number),
                    GLOO_SOCKET_IFNAME=f"lebm{number}",
                )
                for number, space in enumerate(spaces)
            ]
            if any(job.wait() for job in jobs) or start(f"{folder}/one").wait():
                sys.exit("a run has failed")
            one, two = (checkpoint.newest(Path(folder) / run)[1] for run in ("one", "two"))
            apart = max(
                float((one["state_dict"][name] - two["state_dict"][name]).abs().max())
                for name in one["state_dict"]
            )
            print(
                f"two machines and one process after {two['global_step']} steps in double precision: at most"
                f" {apart:.1e} apart"
            )
            if apart > 1e-9:
                sys.exit("too far apart")
    finally:
        for space in spaces:
            subprocess.run(["ip", "netns", "delete", space], check=False)


if __name__ == "__main__":
    main()
