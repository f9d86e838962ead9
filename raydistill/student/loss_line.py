"""The loss of a fit as a line of about a hundred points, for the report."""

from __future__ import annotations

from dataclasses import dataclass, field

_NUM_POINTS = 100


@dataclass
class LossLine:
    """Mean loss over each hundredth of a fit's pairs, of this worker; part of a checkpoint."""

    points: list[dict[str, float]] = field(default_factory=list)  # pairs, loss
    loss_sum: float = 0.0  # since the last point
    num_pairs: int = 0
    done: int = 0  # pairs of all workers

    def add(self, loss: float, *, num_pairs: int, done: int, of: int) -> None:
        """Count a step: summed loss and pairs here, pairs of all workers so far and in the end."""
        self.loss_sum += loss
        self.num_pairs += num_pairs
        every = max(1, of // _NUM_POINTS)
        if done // every > self.done // every:
            self.points.append(
                {"pairs": float(done), "loss": self.loss_sum / max(self.num_pairs, 1)}
            )
            self.loss_sum, self.num_pairs = 0.0, 0
        self.done = done
