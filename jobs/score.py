"""Job: `ray job submit --working-dir . -- python -m jobs.score --bundle B --input I --output O`."""

from raydistill.cli.main import stage_main

if __name__ == "__main__":
    stage_main("score")
