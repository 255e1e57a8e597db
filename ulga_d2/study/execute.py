"""Run the cells of a study, each in a process of its own; skip what is done, resume what is not."""

from __future__ import annotations

import json
import logging
import os
import queue
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..data.sample import write_sample
from ..engine.checkpoint import holds_checkpoint
from ..engine.device import available_cores
from ..errors import UserError
from ..evaluation.atomic import write_atomically
from .plan import FOLDER, SEED, Cell, Study

logger = logging.getLogger(__name__)

LAST_LINES = 6  # of a failed cell's output that are shown


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

        Raises:
            UserError: a cell that was run with other settings, or data that cannot be written.
        """
        left = [cell for cell in self.study.cells if not self.is_done(cell)]
        total = len(self.study.cells)
        logger.info("%s: %d cells, %d done before", self.study.name, total, total - len(left))
        for name in {cell.data for cell in left} - {""}:
            arguments = dict(self.study.samples[name])
            dataset = arguments.pop("dataset")
            write_sample(dataset, self.out / "data" / name / dataset, **arguments)
        with ThreadPoolExecutor(self._workers) as pool:
            ended = list(pool.map(lambda cell: self._run_cell(cell, len(left)), left))
        return [cell for cell, is_well in zip(left, ended, strict=True) if not is_well]

    def _run_cell(self, cell: Cell, total: int) -> bool:
        place = self._places.get()
        start = time.monotonic()
        self._write(cell, {"asked": self._asked(cell)})
        try:
            code = self._call(cell, place)
        finally:
            self._places.put(place)
        seconds = time.monotonic() - start
        if code:
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
        with open(self._output(cell), "w", encoding="utf-8") as output:
            return subprocess.call(
                self._command(cell), stdout=output, stderr=output, env=environment
            )

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
        return json.loads(note.read_text(encoding="utf-8")) if note.is_file() else None

    def _write(self, cell: Cell, content: dict[str, Any]) -> None:
        write_atomically(str(self._note(cell)), json.dumps(content, indent=1).encode())
