"""A deleted rollout leaves its devices on stable."""

from dataclasses import replace

from dram_operator.api.rollout_status import EdgeRolloutStatus
from dram_operator.core.rollout.document import Delivery
from tests.operator.core.rollout.world import FLEET, NEW, OLD, World, a_release, at_step


def test_devices_are_told_first() -> None:
    world = World().run_until(at_step(1, "Baking"))
    world.deleted_at = world.now
    decision = world.reconcile()
    assert not decision.finished
    world.tick()
    assert world.reconcile().finished
    world.tick(60)
    world.tick(60)
    assert world.running(NEW) == 0


def test_devices_are_not_left_frozen_for_good() -> None:
    world = World(delivery=Delivery(frozen=True)).run(60)
    assert world.signed
    assert world.signed.frozen
    world.deleted_at = world.now
    world.reconcile()
    assert world.reconcile().finished
    assert not world.signed.frozen


def test_an_object_that_was_restored_goes_by_what_is_signed() -> None:
    world = World().run_until(at_step(1, "Baking"))
    world.status, world.deleted_at = EdgeRolloutStatus(), world.now
    assert not world.reconcile().finished
    world.tick()
    assert world.reconcile().finished
    assert world.signed
    assert (world.signed.candidate, world.signed.stable) == (None, a_release(OLD).release)
    world.tick(60)
    world.tick(60)
    assert world.running(OLD) == FLEET
    assert world.events[-2:] == ["Adopted", "Deleting"]


def test_an_object_that_was_restored_waits_for_what_is_signed_to_be_read() -> None:
    world = World().run_until(at_step(1, "Baking"))
    world.status, world.deleted_at, world.repository_problem = EdgeRolloutStatus(), world.now, "gone"
    unread = replace(world.observe(), document=None)
    assert not world.reconcile(unread).finished
    world.repository_problem = ""
    assert not world.reconcile().finished
    assert world.reconcile().finished
    assert world.signed
    assert world.signed.candidate is None


def test_it_does_not_wait_for_ever_for_what_is_signed_to_be_read() -> None:
    world = World(stable=None, repository_problem="gone")
    world.deleted_at = world.now
    world.run(300)
    assert world.reconcile().finished
    assert world.events == ["DeletionGaveUp"]


def test_one_that_never_signed_anything_goes_at_once() -> None:
    world = World(stable=None)
    world.deleted_at = world.now
    assert world.reconcile().finished
    assert world.events == []


def test_it_gives_up_after_five_minutes() -> None:
    world = World().run_until(at_step(1, "Baking"))
    world.deleted_at, world.repository_problem = world.now, "gone"
    world.run(270)
    assert not world.reconcile().finished
    world.tick(31)
    assert world.reconcile().finished
    assert world.events[-1] == "DeletionGaveUp"
