from raydistill.student.loss_line import LossLine


def test_a_point_is_the_mean_loss_since_the_last_one() -> None:
    line = LossLine()
    for step in range(1, 9):  # two workers: 25 of 50 pairs here
        line.add(25.0 * step, num_pairs=25, done=50 * step, of=400)
    assert line.points == [{"pairs": 50.0 * step, "loss": float(step)} for step in range(1, 9)]
    assert (line.loss_sum, line.num_pairs, line.done) == (0.0, 0, 400)


def test_a_long_fit_has_a_hundred_points() -> None:
    line = LossLine()
    for step in range(1, 1_001):
        line.add(8.0, num_pairs=4, done=4 * step, of=4_000)
    assert len(line.points) == 100 and {point["loss"] for point in line.points} == {2.0}
    assert line.points[0]["pairs"] == 40
