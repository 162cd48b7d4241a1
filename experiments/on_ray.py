# needs: ray
"""Train on a Ray cluster, whose workers are the processes of one program.

    scripts/run experiments/on_ray.py --workers 2 train ppo/cartpole --run-dir runs/by_two
    scripts/run experiments/on_ray.py --workers 4 --gpus 1 finetune dpo --path pairs.jsonl --name FOLDER --fsdp 4

After the options of this file comes a command of `jaxrl`. Ray finds the machines and starts a worker on each (the
cluster is the one that RAY_ADDRESS names; without it, one is started on this machine alone), and JAX's own runtime
joins them, as scripts/launch joins processes of one machine (README, "Many devices"). On several machines --run-dir has
to be a directory that all of them see, and jaxrl installed in the Python that Ray starts. Prints what the first worker
prints. Where a worker dies the others are ended: the same line with --resume goes on from the last checkpoint.
"""

import argparse
import os
import socket
import subprocess
import sys

import ray


class Worker:
    """One process of the program, where Ray has put it."""

    def __init__(self):
        self.process: subprocess.Popen | None = None

    def address(self) -> str:
        """Where the others find this one, on a port that is free now."""
        with socket.socket() as free:
            free.bind(("", 0))
            return f"{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"

    def run(self, words: list[str], env: dict[str, str]) -> tuple[int, str]:
        """(the status of `jaxrl` with these words, what it printed)."""
        command = [sys.executable, "-m", "jaxrl", *words]
        self.process = subprocess.Popen(command, env={**os.environ, **env}, stdout=subprocess.PIPE, text=True)
        said = self.process.communicate()[0]
        return self.process.returncode, said

    def stop(self) -> None:
        """End it: the actor's own end would leave it waiting for the others."""
        if self.process is not None:
            self.process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--workers", type=int, required=True, metavar="N", help="processes")
    parser.add_argument("--cpus", type=float, default=1, help="that each takes of its machine")
    parser.add_argument("--gpus", type=float, default=0, help="that each takes of its machine")
    parser.add_argument("--devices", type=int, metavar="D", help="virtual devices of each, on a CPU")
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND [options]", help="of jaxrl")
    asked = parser.parse_args()
    if asked.workers < 1 or not asked.words:
        parser.error("it takes at least one worker, and a command of jaxrl")
    cluster = os.environ.get("RAY_ADDRESS")
    here = {} if cluster else {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}  # nobody else's business
    ray.init(address=cluster, logging_level="ERROR", **here)
    made = ray.remote(num_cpus=asked.cpus, num_gpus=asked.gpus, max_concurrency=2)(Worker)
    workers = [made.remote() for _ in range(asked.workers)]
    env = {"JAX_NUM_PROCESSES": str(asked.workers), "JAX_COORDINATOR_ADDRESS": ray.get(workers[0].address.remote())}
    if asked.devices:
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={asked.devices}"
        env |= {"XLA_FLAGS": flags.strip(), "JAX_PLATFORMS": "cpu"}
    sys.exit(together(workers, asked.words, env))


def together(workers: list, words: list[str], env: dict[str, str]) -> int:
    """Run them until all have ended well, or one has not. Returns its status, or 0."""
    pending = {w.run.remote(words, {**env, "JAX_PROCESS_ID": str(i)}): i for i, w in enumerate(workers)}
    printed = ""
    while pending:
        (done,), _ = ray.wait(list(pending), num_returns=1)
        number = pending.pop(done)
        try:
            status, said = ray.get(done)
        except ray.exceptions.RayActorError as error:
            print(f"worker {number} of {len(workers)} is gone: {str(error).splitlines()[0]}", file=sys.stderr)
            status, said = 1, ""
        if status:
            for i in pending.values():
                workers[i].stop.remote()
            return status if status > 0 else 128 - status
        printed = said if number == 0 else printed
    print(printed, end="")
    return 0


if __name__ == "__main__":
    main()
