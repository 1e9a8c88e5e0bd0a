"""The levers of `kubectl dram` with the real operator at the other end: what it does, the status that comes back, and the exit codes."""

import pytest

from tests.integration.kubectl.seat import Seat
from tests.integration.operator.conftest import NewNamespace
from tests.integration.operator.rollouts import DEVICES, Site, condition, is_completed, is_rolled_back, step

pytestmark = pytest.mark.long


def is_waiting(obj: dict[str, dict[str, dict[str, str]]]) -> bool:
    return bool(obj.get("status", {}).get("step", {}).get("state") == "AwaitingApproval")


def test_abort_retry_approve_and_undo_end_in_what_they_say(site: Site, new_namespace: NewNamespace) -> None:
    namespace, name = new_namespace(), "bot"
    seat = Seat("admin", site.plane.kubeconfig)

    def dram(*arguments: str) -> str:
        result = seat.dram("rollout", *arguments, "-n", namespace, "--timeout", "120")
        assert result.exit_code == 0, result.output
        return result.output

    channel = site.channel(namespace, name)
    rollout = site.rollout(namespace, name, step("50%"), {"pause": {}}, step("100%"))
    with site.replica(namespace):
        site.api.create(rollout.manifest())
        site.wait(namespace, name, "to wait for a person", is_waiting)

        assert dram("abort", name, "--yes", "--reason", "complaints").startswith("✓ abort by admin")
        site.wait(namespace, name, "to be rolled back", is_rolled_back)
        site.wait(namespace, name, "to stall", lambda obj: condition(obj, "Stalled") == "True Quarantined")
        assert seat.dram("rollout", "watch", name, "-n", namespace).exit_code == 3
        assert channel.running(site.new) == 0

        dram("retry", name, "--yes")
        site.wait(namespace, name, "to wait for a person again", is_waiting)
        dram("approve", name, "--yes")
        assert seat.dram("rollout", "watch", name, "-n", namespace).exit_code == 0
        assert is_completed(site.get(namespace, name))
        assert channel.running(site.new) == DEVICES

        dram("undo", name, "--yes")
        site.wait(namespace, name, "to go back", lambda obj: channel.running(site.old) == DEVICES)

    told = seat.dram("rollout", "status", name, "-n", namespace).output
    for verb in ("abort", "retry", "approve", "undo"):
        assert f"✓ {verb} by admin" in told
    assert "“complaints”" in told
