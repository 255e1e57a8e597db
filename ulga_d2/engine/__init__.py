"""What turns a config into a run: data order, optimizer, checkpoints, the loop, the launcher."""
