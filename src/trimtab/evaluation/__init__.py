"""Does it help: conditions, runner, paired statistics and the verdict."""
