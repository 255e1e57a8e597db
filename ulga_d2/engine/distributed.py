"""Many processes: NCCL with one GPU each, or gloo on CPUs."""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.utils import comm

from ..errors import UserError
from .device import available_cores

BACKENDS = {"cuda": "nccl", "cpu": "gloo"}


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

    Raises:
        UserError: processes that this machine cannot have, or a user's error in any of them.
    """
    _check(args, device)
    url = args.dist_url
    if url == "auto":
        url = f"tcp://127.0.0.1:{_free_port()}"
    # After a user's error the first process to end makes torch warn that it ends the others.
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    faults = mp.get_context("spawn").SimpleQueue()
    work = (main, args, url, device, faults)
    try:
        mp.start_processes(_work, nprocs=args.num_gpus, args=work, start_method="spawn")
    except (mp.ProcessExitedException, mp.ProcessRaisedException) as error:
        messages = set()
        while not faults.empty():
            messages.add(faults.get())
        if messages:
            raise UserError("\n".join(sorted(messages))) from None
        if isinstance(error, mp.ProcessRaisedException):
            raise
        return error.exit_code
    return 0


def _check(args: argparse.Namespace, device: str) -> None:
    if device not in BACKENDS:
        raise UserError(
            f"MODEL.DEVICE is {device}, but {args.num_gpus * args.num_machines} processes were "
            f"asked for; give {' or '.join(BACKENDS)} or auto, or --num-gpus 1"
        )
    if device == "cuda" and args.num_gpus > torch.cuda.device_count():
        raise UserError(
            f"--num-gpus {args.num_gpus}, but this machine has {torch.cuda.device_count()}"
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
    if device == "cuda":
        torch.cuda.set_device(local_rank)
    elif "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, available_cores() // args.num_gpus))
    dist.init_process_group(
        backend=BACKENDS[device],
        init_method=url,
        world_size=args.num_machines * args.num_gpus,
        rank=args.machine_rank * args.num_gpus + local_rank,
    )
    comm.create_local_process_group(args.num_gpus)
    try:
        main(args)
        comm.synchronize()  # a rank that is done early would break the others' connections
    except UserError as error:
        faults.put(str(error))
        _leave(2)
    dist.destroy_process_group()
    _leave(0)


def _leave(code: int) -> None:
    """End the process without the interpreter's tear-down, in which gloo's threads can abort."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
