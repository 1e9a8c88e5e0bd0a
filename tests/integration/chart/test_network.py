"""The chart's NetworkPolicies let the whole story through, and shut out what has no part in it."""

from functools import cache

import pytest

from dram_operator.core.worker_pod import COMMON_LABELS
from tests.cluster.api import Object, manifests
from tests.cluster.folders import REPOSITORY
from tests.integration.chart.reachability import Place, place_of, reaches
from tests.integration.chart.rendering import of_kind, pods, render

ENABLED = "networkPolicy.enabled=true"
EVERYTHING = (
    *(ENABLED, "tryout.enabled=true", "networkPolicy.workerPorts={443}"),
    *(
        "agent.enabled=true",
        "agent.channel=tv/bot",
        "agent.devicesSecret=ids",
        "agent.cloud.url=https://c.example.com:8443",
    ),
    *("gateway.enabled=true", "gateway.issuers.configMap=issuers"),
)
OUTSIDE = Place()
APPLICATION = Place("shop", {"app": "till"})
RANK = 29500


@cache
def policies(*values: str) -> list[Object]:
    return of_kind(render(ENABLED, *values), "NetworkPolicy")


@cache
def story() -> tuple[list[Object], dict[str, Place]]:
    """The policies of an installation with everything in it, and its places by component."""
    objects = render(*EVERYTHING)
    found = {pod["metadata"]["labels"]["app.kubernetes.io/component"]: place_of(pod) for pod in pods(objects)}
    found |= {"worker": worker("default"), "outside": OUTSIDE, "application": APPLICATION}
    return of_kind(objects, "NetworkPolicy"), found | {"elsewhere": worker("elsewhere")}


def worker(namespace: str) -> Place:
    return Place(namespace, dict(COMMON_LABELS))


@pytest.mark.parametrize(
    ("source", "target", "port"),
    [
        ("worker", "operator", "progress"),
        ("elsewhere", "operator", "progress"),
        ("operator", "operator", "progress"),
        ("worker", "worker", RANK),
        ("worker", "tryout-s3", "s3"),
        ("worker", "outside", 443),
        ("operator", "tryout-s3", "s3"),
        ("operator", "tryout-prometheus", "http"),
        ("operator", "outside", 6443),
        ("agent", "tryout-s3", "s3"),
        ("agent", "gateway", "otlp"),
        ("agent", "outside", 8443),
        ("application", "agent", "api"),
        ("outside", "gateway", "otlp"),
        ("gateway", "tryout-prometheus", "http"),
        ("tryout-prometheus", "operator", "metrics"),
        ("tryout-prometheus", "agent", "metrics"),
        ("tryout-prometheus", "gateway", "metrics"),
        ("tryout-prometheus", "outside", 6443),
        ("application", "tryout-prometheus", "http"),
        ("selftest", "outside", 6443),
        ("selftest", "tryout-s3", "s3"),
        *(
            (part, "outside", 53)
            for part in ("operator", "worker", "agent", "gateway", "tryout-prometheus", "selftest")
        ),
    ],
)
def test_the_story_goes_on_under_the_policies(source: str, target: str, port: int | str) -> None:
    rules, places = story()
    assert reaches(rules, places[source], places[target], port)


@pytest.mark.parametrize(
    ("source", "target", "port"),
    [
        ("application", "worker", RANK),
        ("elsewhere", "worker", RANK),
        ("application", "operator", "progress"),
        ("outside", "operator", "metrics"),
        ("application", "tryout-s3", 9333),
        ("application", "gateway", 22),
        ("outside", "gateway", "metrics"),
        ("outside", "agent", "api"),
        ("outside", "tryout-prometheus", "http"),
        ("application", "selftest", 80),
        ("worker", "outside", 9000),
        ("tryout-s3", "outside", 53),
        ("gateway", "outside", 6443),
        ("agent", "outside", 6443),
        ("selftest", "outside", 9000),
    ],
)
def test_what_has_no_part_in_the_story_is_shut_out(source: str, target: str, port: int | str) -> None:
    rules, places = story()
    assert not reaches(rules, places[source], places[target], port)


def test_every_pod_of_the_chart_has_a_policy_for_both_directions() -> None:
    rules, places = story()
    covered = {
        rule["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
        for rule in rules
        if rule["spec"]["policyTypes"] == ["Ingress", "Egress"]
    }
    assert covered == places.keys() - {"outside", "application", "elsewhere"}


def test_workers_reach_every_port_until_ports_are_named() -> None:
    found = policies()
    assert reaches(found, worker("chart"), OUTSIDE, 9000)
    assert not reaches(found, APPLICATION, worker("chart"), RANK)


def test_named_ports_keep_the_way_to_the_store_and_the_release_repository() -> None:
    found = policies(
        *("networkPolicy.workerPorts={80}", "storage.uri=s3://a", "storage.endpoint=http://s3.example.com:9000"),
        *("storage.secretRef.name=s3", "releases.uri=s3://r", "releases.endpoint=https://r.example.com:9443"),
        *("releases.root=root", "releases.operatorKey.secret=keys"),
    )
    reached = [port for port in (80, 443, 9000, 9443) if reaches(found, worker("chart"), OUTSIDE, port)]
    assert reached == [80, 9000, 9443]
    _, places = story()
    assert reaches(found, worker("chart"), places["operator"], "progress")
    assert not reaches(found, worker("chart"), places["operator"], "metrics")


@pytest.mark.parametrize(
    "values",
    [("storage.uri=s3://a",), ("releases.uri=s3://r", "releases.root=root", "releases.operatorKey.secret=keys")],
)
def test_named_ports_keep_the_way_to_a_store_at_aws(values: tuple[str, ...]) -> None:
    found = policies("networkPolicy.workerPorts={8000}", *values)
    assert [port for port in (80, 443, 8000) if reaches(found, worker("chart"), OUTSIDE, port)] == [443, 8000]


@pytest.mark.parametrize(
    ("values", "want"),
    [
        ((), {"chart"}),
        (("namespaces={tv,shop}",), {"tv", "shop"}),
        (("tryout.enabled=true", "tryout.namespaces={tv}"), {"chart", "tv"}),
        (("tryout.enabled=true", "tryout.namespaces={tv}", "namespaces={tv}"), {"tv"}),
    ],
)
def test_workers_are_covered_in_the_namespaces_that_the_chart_knows(values: tuple[str, ...], want: set[str]) -> None:
    found = [policy["metadata"] for policy in policies(*values) if policy["metadata"]["name"] == "dram-worker"]
    assert {metadata["namespace"] for metadata in found} == want


@pytest.mark.parametrize(
    ("url", "port"),
    [("http://p:9090/x", 9090), ("https://p", 443), ("http://p/api:1/", 80), ("http://[::1]:81", 81)],
)
def test_the_ports_of_servers_are_those_of_their_addresses(url: str, port: int) -> None:
    found = policies("prometheus[0].name=a", f"prometheus[0].url={url}")
    _, places = story()
    reached = {number for number in (80, 81, 443, 9090) if reaches(found, places["operator"], OUTSIDE, number)}
    assert reached == {443, port}


@pytest.mark.parametrize(
    ("url", "namespace"),
    [
        ("http://prometheus.monitoring.svc", "monitoring"),
        ("http://prometheus.monitoring.svc.cluster.local:80/x", "monitoring"),
        ("http://prometheus", "chart"),
    ],
)
def test_a_service_may_have_another_port_than_its_pods(url: str, namespace: str) -> None:
    found = policies("prometheus[0].name=a", f"prometheus[0].url={url}")
    _, places = story()
    reached = {
        name for name in ("monitoring", "chart", "shop") if reaches(found, places["operator"], Place(name), 9090)
    }
    assert reached == {namespace}


def test_a_pods_identity_in_the_cloud_can_be_asked_for_where_no_secret_takes_its_place() -> None:
    _, places = story()
    identity = Place(address="169.254.170.23")
    rights = ("releases.uri=s3://r", "releases.root=root", "releases.operatorKey.secret=keys", "storage.uri=s3://a")
    secrets = ("releases.credentialsSecret=s3", "storage.secretRef.name=s3")
    for part in ("operator", "selftest"):
        assert reaches(policies(*rights), places[part], identity, 80)
        assert not reaches(policies(*rights, *secrets), places[part], identity, 80)


def test_the_example_for_a_tenants_namespace_is_the_charts_own_policy() -> None:
    (example,) = manifests((REPOSITORY / "examples" / "tenant" / "network-policy.yaml").read_text())
    values = (
        "networkPolicy.workerPorts={80,443}",
        "namespaces={tv}",
        "storage.uri=s3://a",
        "storage.secretRef.name=s3",
    )
    found = of_kind(render(ENABLED, *values, namespace="dram-system"), "NetworkPolicy")
    (ours,) = [policy for policy in found if policy["metadata"]["name"] == example["metadata"]["name"]]
    assert example["metadata"]["namespace"] == ours["metadata"]["namespace"]
    assert example["spec"] == ours["spec"]
