"""Does it help: arms, runner, paired statistics and the verdict."""
