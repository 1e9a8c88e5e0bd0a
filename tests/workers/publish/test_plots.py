"""Curves of a train log."""

from dram_workers.publish.plots import loss_plot, schedule_plot

LOG = [
    {
        "step": step, "loss": 1.0 / step, "soft": 1.0 / step, "hiddenStates": 0.5, "hiddenStatesWeight": 0.1, "alpha": 0.5,
        "targets": 12345, "tokens": 23456, "samples": 34567, "drawn": 45678, "lossScale": 65536.0, "gradNorm": 2.0,
    }
    | ({"validationLoss": 0.9 / step} if step % 3 == 0 else {})
    for step in range(1, 13)
]  # fmt: skip


def test_a_term_and_a_schedule_that_nobody_told_of_are_drawn() -> None:
    loss, schedules = loss_plot(LOG), schedule_plot(LOG)
    for name, there, elsewhere in (
        ("hiddenStates", loss, schedules),
        ("validation loss", loss, schedules),
        ("hiddenStatesWeight", schedules, loss),
        ("loss scale", schedules, loss),
        ("gradient norm", schedules, loss),
    ):
        assert f">{name}<" in there, name
        assert f">{name}<" not in elsewhere, name
    for name in ("targets", "tokens", "samples", "drawn"):
        assert f">{name}<" not in loss + schedules
