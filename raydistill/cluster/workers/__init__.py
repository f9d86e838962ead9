"""The worker processes of a fit or a stage: their log lines, why they ended, how often they may."""
