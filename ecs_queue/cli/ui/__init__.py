"""What the commands share: options, output, durations, records, progress, signals and logging."""
