"""Train or evaluate a detector: `python train_net.py --config-file FILE [KEY VALUE ...]`."""

from __future__ import annotations

import sys

from ulga_d2.engine.launch import main, run

__all__ = ["main", "run"]

if __name__ == "__main__":
    sys.exit(run())
