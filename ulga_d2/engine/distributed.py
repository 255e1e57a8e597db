"""Many processes: NCCL with one GPU each, or gloo on CPUs."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.utils import comm

from ..errors import UserError
from ..folder_lock import exit_now
from ..inference.device import available_cores

BACKENDS = {"cuda": "nccl", "cpu": "gloo"}
# When a rank has failed, the others get as long to end by themselves, and again after SIGTERM.
GRACE_SECONDS = 20
INTERRUPT_SECONDS = 5  # that Ctrl-C leaves a rank to end by itself
PASSED_ON = (signal.SIGTERM, signal.SIGUSR1)


def launch_processes(
    main: Callable[[argparse.Namespace], object], args: argparse.Namespace, device: str
) -> int:
    """Call `main(args)` in each of this machine's processes; return the exit code of the run.

    detectron2's own launcher is not used because a user's error in one of its children ends in a
    traceback, and because it takes GPUs wherever there are some.

    Args:
        main: what each process calls; importable by name.
        args: parsed arguments of the command.
        device: the resolved MODEL.DEVICE, "cuda" or "cpu".

    Returns:
        0, the exit code of the first rank that failed, or 128 and the number of the signal that
        ended it.

    Raises:
        UserError: processes that this machine cannot have, or a user's error in any of them.
    """
    check_processes(args, device)
    url = args.dist_url
    if url == "auto":
        url = f"tcp://127.0.0.1:{_free_port()}"
    # After a fault the first process to end makes torch warn that it ends the others.
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    faults = mp.get_context("spawn").SimpleQueue()
    work = (main, args, url, device, faults)
    ranks = mp.start_processes(
        _work, nprocs=args.num_gpus, args=work, start_method="spawn", join=False
    )
    with _passing_on_signals(ranks):
        return _wait(ranks, args, faults)


def _wait(ranks: mp.ProcessContext, args: argparse.Namespace, faults: Any) -> int:
    try:
        while not ranks.join(grace_period=GRACE_SECONDS):
            pass
    except KeyboardInterrupt:
        _end(ranks)
        raise
    except (mp.ProcessExitedException, mp.ProcessRaisedException) as error:
        messages = set()
        while not faults.empty():
            messages.add(faults.get())
        if messages:
            raise UserError("\n".join(sorted(messages))) from None
        if isinstance(error, mp.ProcessRaisedException):
            raise
        return _exit_code(args, error)
    return 0


def _end(ranks: mp.ProcessContext) -> None:
    """End the ranks at Ctrl-C, which a terminal sends to them, too; kill those that wait."""
    for number in (signal.SIGINT, signal.SIGKILL):
        for process in ranks.processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)
        deadline = time.monotonic() + INTERRUPT_SECONDS
        for process in ranks.processes:
            process.join(max(0.0, deadline - time.monotonic()))


@contextlib.contextmanager
def _passing_on_signals(ranks: mp.ProcessContext) -> Iterator[None]:
    """Hand what asks this process to stop to its ranks, which save first."""

    def pass_on(number: int, _frame: object) -> None:
        for process in ranks.processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)

    before = {number: signal.signal(number, pass_on) for number in PASSED_ON}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit_code(args: argparse.Namespace, error: mp.ProcessExitedException) -> int:
    """Return a rank's exit code as a shell counts it; tell of a rank that a signal has ended."""
    if error.exit_code >= 0:
        return error.exit_code
    if -error.exit_code not in PASSED_ON:
        rank = args.machine_rank * args.num_gpus + error.error_index
        print(
            f"error: {error.signal_name} has ended rank {rank}, and with it the run; --resume goes "
            "on from the last checkpoint",
            file=sys.stderr,
        )
    return 128 - error.exit_code


def check_processes(args: argparse.Namespace, device: str) -> None:
    """Refuse processes that this machine cannot have.

    Raises:
        UserError: naming what can be had.
    """
    if device not in BACKENDS:
        raise UserError(
            f"MODEL.DEVICE is {device}, but {args.num_gpus * args.num_machines} processes were "
            f"asked for; give {' or '.join(BACKENDS)} or auto, or --num-gpus 1"
        )
    if device == "cuda" and args.num_gpus > torch.cuda.device_count():
        raise UserError(
            f"{args.num_gpus} processes were asked for (--num-gpus; torchrun: --nproc-per-node), "
            f"one a GPU, but this machine has {torch.cuda.device_count()}; MODEL.DEVICE cpu runs "
            "without"
        )
    if args.num_machines > 1 and args.dist_url == "auto":
        raise UserError(
            "--num-machines > 1 needs --dist-url tcp://HOST:PORT, equal on every machine"
        )
    if not 0 <= args.machine_rank < args.num_machines:
        raise UserError(
            f"--machine-rank is {args.machine_rank}; {args.num_machines} machines have the ranks 0 "
            f"to {args.num_machines - 1}"
        )


def _work(
    local_rank: int,
    main: Callable,
    args: argparse.Namespace,
    url: str,
    device: str,
    faults: Any,
) -> None:
    rank = args.machine_rank * args.num_gpus + local_rank
    world_size = args.num_machines * args.num_gpus
    join_group(args, device, init_method=url, rank=rank, world_size=world_size)
    run_rank(main, args, faults.put)


def join_group(args: argparse.Namespace, device: str, *, rank: int, **group: Any) -> None:
    """Take this rank's GPU, or its share of the cores, and meet the other ranks.

    Args:
        args: `num_gpus` is the number of ranks on each machine.
        device: the resolved MODEL.DEVICE.
        rank: among those of all machines.
        group: how they meet, as `torch.distributed.init_process_group` takes it.
    """
    if device == "cuda":
        torch.cuda.set_device(rank % args.num_gpus)
    elif "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, available_cores() // args.num_gpus))
    dist.init_process_group(backend=BACKENDS[device], rank=rank, **group)
    comm.create_local_process_group(args.num_gpus)


def run_rank(
    main: Callable[[argparse.Namespace], object],
    args: argparse.Namespace,
    tell: Callable[[str], None],
) -> NoReturn:
    """Call `main(args)`, wait for the other ranks and end the process.

    A `SystemExit` is every rank's, by agreement; a user's error can be this rank's alone.

    Args:
        main: what each rank calls.
        args: its argument.
        tell: takes the message of a user's error.
    """
    code = 0
    try:
        main(args)
    except UserError as error:
        tell(str(error))
        exit_now(2)
    except SystemExit as stop:
        code = int(stop.code or 0)
    comm.synchronize()  # a rank that is done early would break the others' connections
    if dist.is_initialized():
        dist.destroy_process_group()
    exit_now(code)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
