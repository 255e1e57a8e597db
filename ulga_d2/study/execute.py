"""Run the cells of a study, each in a process of its own; skip what is done, resume what is not."""

from __future__ import annotations

import argparse
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..data.sample import write_sample
from ..engine.launch import add_arguments, read_config
from ..engine.signals import StopSignals
from ..errors import UserError
from ..evaluation.atomic import write_atomically
from ..folder_lock import check_not_locked, locked_folder
from ..inference.device import available_cores
from ..io import parse_json
from ..weights.checkpoint import holds_checkpoint
from .plan import FOLDER, SEED, Cell, Study
from .samples import measure_samples

logger = logging.getLogger(__name__)

LAST_LINES = 6  # of a failed cell's output that are shown


def check_configs(cells: Iterable[Cell]) -> None:
    """Check what can be checked of every cell without its data.

    Raises:
        UserError: naming the cell, the key and the cure.
    """
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    rows = {cell.row: cell for cell in cells}
    for cell in rows.values():
        args = parser.parse_args(["--config-file", cell.config, *cell.options])
        try:
            read_config(args)
        except UserError as error:
            raise UserError(f"variant {cell.row}: {error}") from None


class Execution:
    """A study on its way, in a folder of its own.

    `cells/NAME` is the run folder of a cell, `cells/NAME.json` what was asked of it and how long
    it took, `cells/NAME.txt` what it printed, `data/NAME` a sample.

    Args:
        study: what to run.
        out: the folder.
        gpus: numbers of the GPUs that cells run on, one each at a time; none for whatever their
            config takes.
        jobs: cells at a time where no GPUs are given; the cores are divided among them.
    """

    def __init__(self, study: Study, out: Path, gpus: Sequence[int] = (), jobs: int = 1) -> None:
        self.study = study
        self.out = out
        self._places: queue.Queue[int | None] = queue.Queue()
        for place in gpus or [None] * jobs:
            self._places.put(place)
        self._workers = len(gpus) or jobs
        self._seconds: list[float] = []
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped_by = 0

    def folder(self, cell: Cell) -> Path:
        """Return the run folder of a cell."""
        return self.out / "cells" / cell.name

    def is_done(self, cell: Cell) -> bool:
        """Tell whether a cell has been run to its end.

        Raises:
            UserError: the cell was run with other settings.
        """
        before = self._read(cell)
        if before and before["asked"] != self._asked(cell):
            raise UserError(
                f"{self._note(cell)}: the cell was run with other settings than the study has now; "
                "give another --out, or delete the cell's folder and note"
            )
        return before is not None and "seconds" in before

    def run(self) -> list[Cell]:
        """Run what is left; return the cells that failed.

        At SIGTERM or Ctrl-C the cells that are running are told to save, no other is begun, and the
        process ends with 143 or 130 when they have.

        Raises:
            UserError: a cell that was run with other settings, that another process still runs, or
                whose config cannot work; data that cannot be written, or without the measure of
                ambiguity that the study asks for.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        with locked_folder(self.out, "--out"):
            return self._run()

    def _run(self) -> list[Cell]:
        left = [cell for cell in self.study.cells if not self.is_done(cell)]
        total = len(self.study.cells)
        logger.info("%s: %d cells, %d done before", self.study.name, total, total - len(left))
        check_configs(left)  # refused here rather than after hours, as is what another one runs
        for cell in left:
            check_not_locked(self.folder(cell), FOLDER)
        self._output(self.study.cells[0]).parent.mkdir(parents=True, exist_ok=True)
        for name in {cell.data for cell in left} - {""}:
            arguments = dict(self.study.samples[name])
            dataset = arguments.pop("dataset")
            write_sample(dataset, self.out / "data" / name / dataset, **arguments)
            if self.study.has_ambiguity:
                measure_samples(self.out, {name: self.study.samples[name]})
        with StopSignals() as signals, signals.at_once(self._stop):
            with ThreadPoolExecutor(self._workers) as pool:
                try:
                    ended = list(pool.map(lambda cell: self._run_cell(cell, len(left)), left))
                except KeyboardInterrupt:
                    signals.is_acting = True  # the cells take the time that they need
                    self._stop(signal.SIGTERM)
                    raise
            if self._stopped_by:
                logger.info("stopped; the same command goes on")
                raise SystemExit(128 + self._stopped_by)
        return [cell for cell, is_well in zip(left, ended, strict=True) if not is_well]

    def _stop(self, number: int) -> None:
        self._stopped_by = number
        for process in list(self._running):
            process.send_signal(number)

    def _run_cell(self, cell: Cell, total: int) -> bool:
        if self._stopped_by:
            return False
        place = self._places.get()
        start = time.monotonic()
        self._write(cell, {"asked": self._asked(cell)})
        try:
            code = self._call(cell, place)
        finally:
            self._places.put(place)
        seconds = time.monotonic() - start
        if code:
            if not self._stopped_by:
                self._tell_failure(cell, code)
            return False
        self._write(cell, {"asked": self._asked(cell), "seconds": round(seconds, 1)})
        self._seconds.append(seconds)
        mean = sum(self._seconds) / len(self._seconds)
        left = (total - len(self._seconds)) * mean / self._workers
        logger.info(
            "%s: done in %.0f s; %d of %d, about %.0f min left",
            cell.name,
            seconds,
            len(self._seconds),
            total,
            left / 60,
        )
        return True

    def _call(self, cell: Cell, gpu: int | None) -> int:
        environment = self._environment(cell, gpu)
        with self._output(cell).open("wb") as output:
            process = subprocess.Popen(
                self._command(cell),
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,  # Ctrl-C is told to the study alone, and cells save
            )
        self._running.add(process)
        if self._stopped_by:  # it came too late for `_stop`
            process.send_signal(self._stopped_by)
        try:
            return process.wait()
        finally:
            self._running.discard(process)

    def _tell_failure(self, cell: Cell, code: int) -> None:
        text = self._output(cell).read_text(encoding="utf-8", errors="replace")
        logger.error(
            "%s: ended with code %d; the study goes on without it:\n  %s",
            cell.name,
            code,
            "\n  ".join(text.splitlines()[-LAST_LINES:]),
        )

    def _command(self, cell: Cell) -> list[str]:
        folder = self.folder(cell)
        resume = ["--resume"] if holds_checkpoint(folder) else []
        train = [sys.executable, "-m", "ulga_d2.cli.main", "train", "--config-file", cell.config]
        own = [SEED, str(cell.seed), FOLDER, str(folder)]
        return [*train, *resume, *cell.options, *own]

    def _environment(self, cell: Cell, gpu: int | None) -> dict[str, str]:
        environment = dict(os.environ)
        if cell.data:
            environment["DETECTRON2_DATASETS"] = str(self.out / "data" / cell.data)
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = str(gpu)
        elif self._workers > 1:
            threads = max(1, available_cores() // self._workers)
            environment.setdefault("OMP_NUM_THREADS", str(threads))
        return environment

    def _asked(self, cell: Cell) -> dict[str, Any]:
        sample = dict(self.study.samples[cell.data]) if cell.data else None
        options = list(cell.options)
        return {"config": cell.config, "options": options, "seed": cell.seed, "data": sample}

    def _output(self, cell: Cell) -> Path:
        return self.out / "cells" / f"{cell.name}.txt"

    def _note(self, cell: Cell) -> Path:
        return self.out / "cells" / f"{cell.name}.json"

    def _read(self, cell: Cell) -> dict[str, Any] | None:
        note = self._note(cell)
        return parse_json(note.read_bytes(), note) if note.is_file() else None

    def _write(self, cell: Cell, content: dict[str, Any]) -> None:
        write_atomically(str(self._note(cell)), json.dumps(content, indent=1).encode())
