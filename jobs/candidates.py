"""Job: `ray job submit --working-dir . -- python -m jobs.candidates --queries Q --titles T ...`."""

from raydistill.cli.main import stage_main

if __name__ == "__main__":
    stage_main("candidates")
