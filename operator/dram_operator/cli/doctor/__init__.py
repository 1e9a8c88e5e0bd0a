"""`dram doctor`: looks at an installation and says what is wrong, each thing with its remedy."""

from collections.abc import AsyncIterator
from dataclasses import asdict

import click

from dram_operator.cli.cluster import FAILED, Cluster, on_cluster
from dram_operator.cli.doctor import cluster_checks, site_checks
from dram_operator.cli.doctor.findings import Finding, Findings, Outcome, bad, unknown
from dram_operator.cli.doctor.installation import Installation, find_deployments, of_deployment, own_installation
from dram_operator.cli.output import Form, show_machine
from dram_operator.errors import OperatorError, SettingsInvalid, Unavailable

COLOURS = {Outcome.GOOD: "green", Outcome.BAD: "red", Outcome.UNKNOWN: "yellow"}
AT_THE_CLUSTER = "check `kubectl config current-context`, --context and the network"


@click.command()
@click.option("--operator-namespace", metavar="NAME", help="Where the operator is; absent looks for it everywhere.")
@click.option(
    "-o", "--output", "form", type=click.Choice(["json", "yaml"]), help="For programs: a list of the findings."
)
@on_cluster
async def doctor(cluster: Cluster, operator_namespace: str | None, form: Form | None) -> int | None:
    """Check cluster, CRDs, rights, operator, images, S3, Prometheus, release keys and their expiry.

    It reads no Secret and changes nothing. What cannot be seen from here can from the operator's pod:
    `kubectl exec -n NAMESPACE deploy/NAME -- dram doctor`. Exit codes: 0 nothing is wrong; 4 something is (✗).
    """
    found = []
    async for finding in _examined(cluster, operator_namespace):
        found.append(finding)
        if not form:
            click.secho(finding.line(), fg=COLOURS[finding.outcome])
    if form:
        show_machine([asdict(one) | {"outcome": one.outcome.value} for one in found], form)
    return FAILED if any(one.outcome is Outcome.BAD for one in found) else None


async def _examined(cluster: Cluster, namespace: str | None) -> Findings:
    """Every finding, the cluster's first: one that cannot be used says nothing more."""
    async for finding in _guarded("cluster", cluster_checks.check_cluster(cluster)):
        yield finding
        if finding.outcome is not Outcome.GOOD:
            return
    sites, problem = await _sites(cluster, namespace)
    checks = [("kinds", cluster_checks.check_kinds(cluster))]
    if not any(site.is_inside for site in sites):
        checks.append(("your rights", cluster_checks.check_own_rights(cluster)))
    for finding in cluster_checks.shared_namespaces(sites):
        yield finding
    for site in sites:
        checks += _of_site(cluster, site)
    for name, check in checks:
        async for finding in _guarded(name, check):
            yield finding
    if problem:
        yield problem


async def _sites(cluster: Cluster, namespace: str | None) -> tuple[list[Installation], Finding | None]:
    """The installations to look at, and what is wrong with looking for them."""
    try:
        own = own_installation()
        found = [own] if own else [of_deployment(one) for one in await find_deployments(cluster, namespace)]
    except SettingsInvalid as error:
        return [], bad("settings", str(error), "correct the chart's values, then helm upgrade")
    except OperatorError as error:
        remedy = "name its namespace with --operator-namespace, or ask for the right to list deployments there"
        return [], unknown("operator", f"it cannot be looked for: {error}", remedy)
    nobody = bad("operator", f"there is none in {namespace or 'the cluster'}", cluster_checks.INSTALL)
    return found, None if found else nobody


def _of_site(cluster: Cluster, site: Installation) -> list[tuple[str, AsyncIterator[Finding]]]:
    checks = [("operator", cluster_checks.check_operator(cluster, site))] if site.deployment else []
    return [
        *checks,
        ("operator's rights", cluster_checks.check_operators_rights(cluster, site)),
        ("storage", site_checks.check_storage(site)),
        ("releases", site_checks.check_repository(cluster, site)),
        ("prometheus", site_checks.check_metrics(site)),
    ]


async def _guarded(name: str, findings: AsyncIterator[Finding]) -> Findings:
    """A check that the cluster stops says so, and the others go on."""
    try:
        async for finding in findings:
            yield finding
    except Unavailable as error:
        yield bad(name, str(error), AT_THE_CLUSTER)
    except OperatorError as error:
        yield unknown(name, str(error))
