"""The command line: one file a command group. What is slow to import is imported by the command that needs it."""
