"""The worker processes of a fit or a stage: GPU, log lines, why they end and how often they may."""
