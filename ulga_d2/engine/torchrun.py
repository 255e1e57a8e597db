"""One rank of a run whose processes another program started: torchrun, on one machine or many."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
import traceback
import uuid
from collections.abc import Callable
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NoReturn

import torch.distributed as dist
from detectron2.utils import comm

from ..config import changed_settings
from ..errors import UserError
from ..folder_lock import exit_now
from ..weights.checkpoint import holds_checkpoint
from .distributed import check_processes, join_group, run_rank

if TYPE_CHECKING:
    from detectron2.config import CfgNode

logger = logging.getLogger(__name__)

PLACE = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def take_place(args: argparse.Namespace) -> None:
    """Fill `args` with the place that the environment gives this process, in place.

    Raises:
        UserError: flags of the other launcher, variables that are missing, or machines with
            different numbers of processes.
    """
    if (args.num_gpus, args.num_machines, args.machine_rank, args.dist_url) != (1, 1, 0, "auto"):
        raise UserError(
            "RANK and WORLD_SIZE are set, so torchrun has started the processes; give it "
            "--nproc-per-node and --nnodes in place of --num-gpus, --num-machines, "
            "--machine-rank and --dist-url"
        )
    missing = [name for name in PLACE if not os.environ.get(name)]
    if missing:
        raise UserError(
            f"RANK and WORLD_SIZE are set, but {', '.join(missing)} not; start with torchrun, "
            "which sets them all, or unset RANK and WORLD_SIZE to run as one process"
        )
    rank, world, per_machine = (
        _number(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    )
    if world % per_machine or rank % per_machine != _number("LOCAL_RANK"):
        raise UserError(
            f"rank {rank} of {world} is number {_number('LOCAL_RANK')} of {per_machine} on its "
            "machine; give every machine the same --nproc-per-node"
        )
    args.num_gpus, args.num_machines = per_machine, world // per_machine
    args.machine_rank, args.dist_url = rank // per_machine, "env://"


def _number(name: str) -> int:
    text = os.environ[name]
    if not text.isdecimal() or (name.endswith("SIZE") and not int(text)):
        raise UserError(f"the environment has {name}={text}; torchrun sets a number there")
    return int(text)


def run_started(
    main: Callable[[argparse.Namespace], object],
    args: argparse.Namespace,
    device_of: Callable[[argparse.Namespace], str],
) -> NoReturn:
    """Call `main(args)` as one rank; end the process with the run's exit code.

    A user's error that several ranks meet is told by the first of them alone.

    Args:
        main: what each rank calls.
        args: parsed arguments, after `take_place`.
        device_of: reads the config and returns the resolved MODEL.DEVICE.
    """
    store, rank, world_size = next(dist.rendezvous("env://"))
    store = unused_part(store, rank, world_size)

    def tell(message: str) -> None:
        if _is_first(store, message):
            print(f"error: {message}", file=sys.stderr)

    try:
        device = device_of(args)
        if world_size > 1:
            check_processes(args, device)
            join_group(args, device, store=store, rank=rank, world_size=world_size)
    except UserError as error:
        tell(str(error))
        exit_now(2)
    try:
        run_rank(main, args, tell)
    except KeyboardInterrupt:
        exit_now(130)
    except Exception:  # told here, because the interpreter's own end is skipped
        traceback.print_exc()
        exit_now(1)


def unused_part(store: dist.Store, rank: int, world_size: int) -> dist.Store:
    """Return a part of the store that is these ranks' alone; every rank must call it.

    torchrun keeps one store through its restarts, with the addresses of ranks that are no more,
    and its count of them can differ from machine to machine. So rank 0 names the part anew, and
    tells it under names that the others have just made up.
    """
    own = uuid.uuid4().hex
    if rank:
        store.set(f"hello/{rank}", own)
        part = store.get(f"welcome/{own}").decode()
        store.set(f"{part}/here/{rank}", "")
        return dist.PrefixStore(part, store)
    deadline = time.monotonic() + store.timeout.total_seconds()
    missing = set(range(1, world_size))
    while missing:
        if time.monotonic() > deadline:
            raise UserError(f"ranks {sorted(missing)} have not come; see their own output")
        for other in sorted(missing):
            if store.check([f"{own}/here/{other}"]):
                missing.discard(other)
            elif store.check([f"hello/{other}"]):
                store.set(f"welcome/{store.get(f'hello/{other}').decode()}", own)
        time.sleep(0.02)
    return dist.PrefixStore(own, store)


def _is_first(store: dist.Store, message: str) -> bool:
    """Tell whether no rank has told this message before; where nobody knows, it has not."""
    try:
        return store.add(f"ulga_d2/told/{sha256(message.encode()).hexdigest()}", 1) == 1
    except RuntimeError:  # the process that holds the store has ended
        return True


def goes_on(cfg: CfgNode, args: argparse.Namespace) -> bool:
    """Tell whether torchrun has started the run again, and it has left a checkpoint to go on from.

    Every rank must call it.
    """
    again = _restarts("TORCHELASTIC_RESTART_COUNT")
    if not again or args.resume or args.eval_only:
        return False
    return holds_checkpoint(cfg.OUTPUT_DIR)


def is_started_again() -> bool:
    """Tell whether torchrun or a scheduler (Slurm's requeue) has started the run again by itself.

    Every rank must call it.
    """
    return any([_restarts("TORCHELASTIC_RESTART_COUNT"), _restarts("SLURM_RESTART_COUNT")])


def _restarts(name: str) -> int:
    """Return the most restarts that any rank knows of: torchrun counts on each machine alone."""
    text = os.environ.get(name, "")
    return max(comm.all_gather(int(text) if text.isdecimal() else 0))


def refuse_another_run(cfg: CfgNode, state: dict[str, Any]) -> None:
    """Refuse to go on by itself with a run that is not the one which torchrun has started again.

    torchrun also restarts a run that was refused because its folder holds another.

    Raises:
        UserError: the checkpoint was made with other settings.
    """
    changes = changed_settings(state["config"], cfg.dump())
    # Of all settings this one alone follows from the machine.
    differing = [key for key, *_ in changes if key != "DATALOADER.NUM_WORKERS"]
    if differing:
        raise UserError(
            f"OUTPUT_DIR {cfg.OUTPUT_DIR} already holds another run; it differs in "
            f"{', '.join(differing)}. Give another OUTPUT_DIR"
        )
    logger.info("torchrun has started the run again: it goes on as with --resume")
