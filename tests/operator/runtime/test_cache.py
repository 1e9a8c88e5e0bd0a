"""The cache: whatever order messages come in, the newest stands and the dead stay dead."""

from copy import deepcopy

from hypothesis import given, settings
from hypothesis import strategies as st

from dram_operator.adapters.resources import DISTILLATION_JOBS, EDGE_ROLLOUTS, JOBS, PODS
from dram_operator.runtime import cache as cache_module
from dram_operator.runtime.cache import Cache, Key
from tests.operator.runtime.objects import Object, a_child, a_job, a_rollout

KEY = Key("ns", "bot")


def test_a_child_is_told_as_its_distillation_job_and_only_once() -> None:
    cache = Cache()
    assert cache.apply(JOBS, a_child("bot-train-1", "u1", 5)) == KEY
    assert cache.apply(JOBS, a_child("bot-train-1", "u1", 5)) is None, "the same again"
    assert cache.apply(JOBS, a_child("bot-train-1", "u1", 4)) is None, "an older one"
    assert cache.apply(JOBS, a_child("bot-train-1", "u1", 6)) == KEY


def test_children_of_a_deleted_namesake_are_not_ours() -> None:
    cache = Cache()
    cache.apply(DISTILLATION_JOBS, a_job(uid="job-2"))
    cache.apply(JOBS, a_child("bot-train-1", "u1", owner="job-1"))
    cache.apply(JOBS, a_child("bot-train-2", "u2", owner="job-2"))
    cache.apply(PODS, a_child("bot-train-2-x", "p2", owner="u2", kind="Pod"))
    cache.apply(PODS, a_child("bot-train-1-x", "p1", owner="u1", kind="Pod"))
    snapshot = cache.snapshot(KEY)
    assert snapshot is not None
    assert [job["metadata"]["name"] for job in snapshot.jobs] == ["bot-train-2"]
    assert {uid: [pod["metadata"]["uid"] for pod in pods] for uid, pods in snapshot.pods.items()} == {"u2": ["p2"]}


def test_a_pod_that_is_gone_still_tells_how_it_ended_until_its_job_goes() -> None:
    cache = Cache()
    cache.apply(DISTILLATION_JOBS, a_job())
    cache.apply(JOBS, a_child("bot-train-1", "u1", 2))
    evicted = [{"type": "DisruptionTarget", "status": "True"}]
    cache.apply(PODS, a_child("x", "p1", 3, owner="u1", kind="Pod"))
    cache.apply(PODS, a_child("x", "p1", 4, owner="u1", kind="Pod", conditions=evicted), deleted=True)
    cache.apply(PODS, a_child("y", "p2", 5, owner="u1", kind="Pod"))
    cache.apply(PODS, a_child("y", "p2", 6, owner="u1", kind="Pod"), deleted=True)
    snapshot = cache.snapshot(KEY)
    assert snapshot is not None
    assert [pod["metadata"]["uid"] for pod in snapshot.pods["u1"]] == ["p1"], "the other one has nothing to tell"
    cache.apply(JOBS, a_child("bot-train-1", "u1", 7), deleted=True)
    cache.apply(JOBS, a_child("bot-train-1", "u1-again", 8))
    cache.apply(PODS, a_child("x", "p3", 9, owner="u1", kind="Pod", conditions=evicted), deleted=True)
    assert cache.snapshot(KEY).pods == {"u1-again": ()}  # type: ignore[union-attr]


def test_an_answer_that_comes_after_the_deletion_does_not_bring_the_object_back() -> None:
    cache = Cache()
    cache.apply(DISTILLATION_JOBS, a_job())
    assert cache.apply(JOBS, a_child("bot-train-1", "u1", 9), deleted=True) == KEY
    assert cache.apply(JOBS, a_child("bot-train-1", "u1", 7)) is None
    assert cache.snapshot(KEY).jobs == ()  # type: ignore[union-attr]


def test_the_deletion_of_a_predecessor_leaves_its_successor() -> None:
    cache = Cache()
    cache.apply(DISTILLATION_JOBS, a_job(uid="old", version=1))
    cache.apply(DISTILLATION_JOBS, a_job(uid="new", version=5))
    cache.apply(DISTILLATION_JOBS, a_job(uid="old", version=3), deleted=True)
    assert cache.snapshot(KEY).job["metadata"]["uid"] == "new"  # type: ignore[union-attr]


def test_a_listing_buries_what_is_gone_but_not_what_is_younger_than_itself() -> None:
    cache = Cache()
    for name, uid, version in (("a", "u1", 3), ("b", "u2", 4), ("c", "u3", 9)):
        cache.apply(JOBS, a_child(name, uid, version))
    assert cache.replace(JOBS, [a_child("a", "u1", 3)], "5") == {KEY}
    assert cache.find(JOBS, "ns", "a")
    assert cache.find(JOBS, "ns", "b") is None
    assert cache.find(JOBS, "ns", "c"), "made after the listing"
    assert cache.replace(JOBS, [a_child("a", "u1", 3)], "6") == set(), "nothing new"


def test_a_listing_of_one_namespace_says_nothing_of_another() -> None:
    cache = Cache()
    cache.apply(JOBS, a_child("a", "u1", 3))
    assert cache.replace(JOBS, [], "5", "elsewhere") == set()
    assert cache.find(JOBS, "ns", "a")


def test_what_a_listing_shows_is_known_once_it_or_its_end_was_told() -> None:
    cache = Cache()
    listed = a_child("a", "u1", 3)
    assert not cache.knows(JOBS, listed)
    cache.apply(JOBS, a_child("a", "u1", 2))
    assert not cache.knows(JOBS, listed), "an older version only"
    cache.apply(JOBS, a_child("a", "u1", 4))
    assert cache.knows(JOBS, listed)
    cache.apply(JOBS, a_child("a", "u1", 5), deleted=True)
    assert cache.knows(JOBS, listed)


def test_what_is_not_ours_to_read_is_not_kept() -> None:
    cache = Cache()
    job = a_job()
    job["metadata"]["managedFields"] = [{"manager": "kubectl"}]
    cache.apply(DISTILLATION_JOBS, job)
    assert "managedFields" not in cache.snapshot(KEY).job["metadata"]  # type: ignore[union-attr]


def test_the_dead_are_forgotten_in_the_end() -> None:
    cache = Cache()
    for number in range(cache_module.TOMBSTONES + 5):
        cache.apply(JOBS, a_child("a", f"u{number}", number), deleted=True)
    assert len(cache._tombstones) == cache_module.TOMBSTONES


HISTORY = [
    (JOBS, a_child("a", "u1", 2), False),
    (JOBS, a_child("a", "u1", 4, active=1), False),
    (JOBS, a_child("a", "u1", 6), True),
    (JOBS, a_child("a", "u2", 8), False),
    (PODS, a_child("p", "u3", 5, owner="u2", kind="Pod"), False),
    (PODS, a_child("p", "u3", 7, owner="u2", kind="Pod", phase="Running"), False),
    (PODS, a_child("q", "u4", 9, owner="u2", kind="Pod"), True),
    (DISTILLATION_JOBS, a_job(version=1), False),
    (DISTILLATION_JOBS, a_job(version=3, run=1), False),
]


@settings(deadline=None)
@given(st.permutations(HISTORY + HISTORY))
def test_any_order_and_repetition_ends_in_the_same_picture(history: list[tuple[object, Object, bool]]) -> None:
    cache = Cache()
    for resource, obj, deleted in history:
        cache.apply(resource, deepcopy(obj), deleted)  # type: ignore[arg-type]
    snapshot = cache.snapshot(KEY)
    assert snapshot is not None
    assert snapshot.job["status"] == {"run": 1}
    assert [job["metadata"]["uid"] for job in snapshot.jobs] == ["u2"]
    assert [pod["status"] for pod in snapshot.pods["u2"]] == [{"phase": "Running"}]


ROLLOUT = Key("ns", "edge", "EdgeRollout")


def test_a_job_is_waited_for_by_the_rollouts_that_name_it_and_lack_its_variant() -> None:
    cache = Cache()
    assert cache.apply(EDGE_ROLLOUTS, a_rollout(job="bot")) == ROLLOUT
    assert cache.waiting_for(KEY) == (ROLLOUT,)
    assert cache.waiting_for(ROLLOUT) == ()
    source = {"jobRef": {"name": "bot", "variant": "q4"}}
    cache.apply(EDGE_ROLLOUTS, a_rollout(job="bot", version=2, candidate={"source": source}))
    assert cache.waiting_for(KEY) == ()


def test_a_rollout_that_turns_to_another_job_or_goes_waits_no_longer() -> None:
    cache = Cache()
    cache.apply(EDGE_ROLLOUTS, a_rollout(job="bot"))
    cache.apply(EDGE_ROLLOUTS, a_rollout(job="other", version=2))
    assert (cache.waiting_for(KEY), cache.waiting_for(Key("ns", "other"))) == ((), (ROLLOUT,))
    cache.apply(EDGE_ROLLOUTS, a_rollout(job="other", version=3), deleted=True)
    assert cache.waiting_for(Key("ns", "other")) == ()


def test_a_job_and_a_rollout_of_one_name_are_two() -> None:
    cache = Cache()
    cache.apply(DISTILLATION_JOBS, a_job(name="edge"))
    cache.apply(EDGE_ROLLOUTS, a_rollout(job="bot"))
    assert len(list(cache.edge_rollouts())) == len(list(cache.distillation_jobs())) == 1
