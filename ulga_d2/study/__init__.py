"""Grids of runs: configs x data x variants x seeds, run, resumed, and put into one table."""
