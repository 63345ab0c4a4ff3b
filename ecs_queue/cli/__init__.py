"""The command line: `main` is the entry point, each command is a module of its own name, `ui` has what they share."""
