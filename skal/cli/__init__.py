"""The command line: options, what a terminal shows; `main` is in `cli.cli`."""
