"""The dev and test splits of a run: judged pairs, or held-out queries of the transfer set."""
