"""What a runner and the launchers share about runs, with few imports: a runner starts often, and must start fast."""
