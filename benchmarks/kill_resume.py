"""Kill runs at random moments, resume them, and compare their end with the uninterrupted run's.

`python -m benchmarks.kill_resume` kills until 40 kills have hit, half of them while a file is being
written, with 0, 2 and 4 workers on one rank and 0 and 2 workers on two, and prints a table.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from tabulate import tabulate

from ulga_d2.data.sample import write_sample
from ulga_d2.engine.history import TIMES
from ulga_d2.weights.checkpoint import load_checkpoint
from ulga_d2.weights.digest import content_sha256

REPOSITORY = Path(__file__).resolve().parents[1]
LEAF = REPOSITORY / "configs" / "brain_tumor_swin_ulga_nano.yaml"
# A run of a few seconds that saves and evaluates often, and keeps a running mean of its weights.
OPTIONS = {
    "MODEL.DEVICE": "cpu",
    "MODEL.ULGA.SWIN.EMBED_DIM": 16,
    "MODEL.ULGA.SWIN.DEPTHS": [1, 1, 1, 1],
    "MODEL.ULGA.SWIN.NUM_HEADS": [1, 1, 2, 2],
    "MODEL.ULGA.CAT.NUM_CONCEPTS": 4,
    "MODEL.FPN.OUT_CHANNELS": 32,
    "MODEL.RETINANET.NUM_CONVS": 1,
    "INPUT.SQUARE_SIZE": 64,
    "SOLVER.NUM_EPOCHS": 0,
    "SOLVER.MAX_ITER": 150,
    "SOLVER.IMS_PER_BATCH": 2,
    "SOLVER.CHECKPOINT_PERIOD": 3,
    "SOLVER.AMP.ENABLED": False,
    "SOLVER.EMA.ENABLED": True,
    "SOLVER.EMA.DECAY": 0.9,
    "TEST.EVAL_PERIOD": 14,
}
SETTINGS = ((0, 1), (2, 1), (4, 1), (0, 2), (2, 2))  # workers, ranks

PATIENCE = 240  # seconds for a run to end


def main(argv: list[str] | None = None) -> int:
    """Print the table; 1 if any end differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        rows, is_equal = compare(Path(folder), args.kills, args.seed)
    headers = ["workers", "ranks", "kills", "of them in a save", "end"]
    print(tabulate(rows, headers, tablefmt="pipe"))
    return 0 if is_equal else 1


def compare(folder: Path, kills: int, seed: int) -> tuple[list[list[object]], bool]:
    """Run every setting to its end with its share of the kills; return the table's rows."""
    data = write_data(folder / "data")
    generator = random.Random(seed)
    rows, whole = [], {}
    for number, (workers, ranks) in enumerate(SETTINGS):
        if ranks not in whole:  # ranks move the last bits, workers must not
            run_whole(data, folder / f"whole{ranks}", ranks)
            whole[ranks] = end_of(folder / f"whole{ranks}")
        share = len(range(number, kills, len(SETTINGS)))
        run = folder / f"workers{workers}_ranks{ranks}"
        hits = run_killed(data, run, workers, ranks, share, generator)
        differing = [part for part, is_like in like(end_of(run), whole[ranks]) if not is_like]
        end = f"differs in {', '.join(differing)}" if differing else "equal"
        rows.append([workers, ranks, len(hits), hits.count("save"), end])
        print(*rows[-1], file=sys.stderr, flush=True)
    return rows, all(row[-1] == "equal" for row in rows)


def write_data(root: Path) -> Path:
    """Write a sample of ten images; return the data root."""
    sizes = {"num_train": 10, "num_val": 6, "size": 64}
    write_sample("brain_tumor", root / "brain_tumor", **sizes, difficulty="easy", seed=0)
    return root


def like(end: dict[str, object], other: dict[str, object]) -> list[tuple[str, bool]]:
    """Tell of each part of a run's end whether it is that of another run."""
    return [(part, end[part] == other[part]) for part in other]


def end_of(run: Path) -> dict[str, object]:
    """Return what a finished run has left, each part as a hash or a list."""
    state = load_checkpoint(run / "model_final.pth")
    parts = {name: content_sha256({name: value}) for name, value in state.items()}
    for name in ("sha256", "config"):
        del parts[name]
    with open(run / "metrics.json", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    parts["metrics.json"] = [
        [(k, line[k]) for k in sorted(line.keys() - set(TIMES))] for line in lines
    ]
    best = load_checkpoint(run / "model_best.pth")
    parts["model_best.pth"] = content_sha256({"model": best["model"], "at": best["iteration"]})
    for name in ("metrics.json", "predictions.json", "predictions_meta.json"):
        content = (run / "inference" / name).read_bytes()
        parts[f"inference/{name}"] = hashlib.sha256(content).hexdigest()
    return parts


def start(data: Path, run: Path, workers: int, ranks: int) -> subprocess.Popen:
    """Start or resume a run in a process group of its own, on one thread a rank."""
    options = {**OPTIONS, "DATALOADER.NUM_WORKERS": workers, "OUTPUT_DIR": run}
    words = [str(word) for pair in options.items() for word in pair]
    has_begun = any(run.glob("model_*.pth"))
    command = [sys.executable, "train_net.py", "--config-file", str(LEAF)]
    command += ["--num-gpus", str(ranks), *(["--resume"] if has_begun else []), *words]
    return subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env={**os.environ, "DETECTRON2_DATASETS": str(data), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run_whole(data: Path, run: Path, ranks: int) -> None:
    """Run to the end."""
    finish(start(data, run, 0, ranks))


def finish(process: subprocess.Popen) -> None:
    """Wait for the end of a run that must succeed."""
    output, _ = process.communicate(timeout=PATIENCE)
    if process.returncode:
        raise RuntimeError(f"a run ended with {process.returncode}:\n{output[-3000:]}")


def run_killed(
    data: Path, run: Path, workers: int, ranks: int, kills: int, generator: random.Random
) -> list[str]:
    """Run to the end through `kills` kills; return what each has hit."""
    hits: list[str] = []
    while len(hits) < kills:
        process = start(data, run, workers, ranks)
        hit = kill(process, run, generator, in_a_save=len(hits) % 2 == 1)
        if not hit:  # it was done before
            break
        hits.append(hit)
    if not is_done(run):
        finish(start(data, run, workers, ranks))
    return hits


def kill(process: subprocess.Popen, run: Path, generator: random.Random, *, in_a_save: bool) -> str:
    """Kill a run some time after it has gone on a step; return what was hit, or "" if it ended."""
    before = newest(run)
    while newest(run) == before and process.poll() is None:
        time.sleep(0.001)
    time.sleep(generator.uniform(0, 1.5))
    while in_a_save and process.poll() is None and not is_saving(run):
        pass
    if in_a_save:
        time.sleep(generator.uniform(0, 0.004))
    hit = "save" if is_saving(run) else "step"
    if process.poll() is not None:
        return ""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return hit


def newest(run: Path) -> float:
    """Return when a checkpoint was last put in its place."""
    return max((path.stat().st_mtime for path in run.glob("last_checkpoint")), default=0.0)


def is_saving(run: Path) -> bool:
    """Tell whether a checkpoint is being written."""
    return any(run.glob("*.tmp"))


def is_done(run: Path) -> bool:
    """Tell whether a run has made its last evaluation."""
    if not (run / "model_final.pth").exists():
        return False
    with open(run / "metrics.json", encoding="utf-8") as file:
        return any(f'"iteration": {OPTIONS["SOLVER.MAX_ITER"]}' in line for line in file)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
