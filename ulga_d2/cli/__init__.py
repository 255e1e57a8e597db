"""The `ulga` command: one thin file a subcommand (read the arguments, call, print)."""
