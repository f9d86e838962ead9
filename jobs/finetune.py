"""Job: `ray job submit --working-dir . -- python -m jobs.finetune --config run.toml`."""

from raydistill.cli.main import stage_main

if __name__ == "__main__":
    stage_main("finetune")
