"""What an installation stands on outside of the cluster's API: buckets, signing keys, metrics servers."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from tuf.api.metadata import Signed

from dram_operator.adapters.prometheus import Endpoint, EndpointInvalid, Prometheus
from dram_operator.adapters.releases.bucket import Bucket, BucketSettings
from dram_operator.adapters.releases.keys import load_key
from dram_operator.adapters.releases.roles import ARTIFACTS, ROOT, SNAPSHOT, TIMESTAMP_LIFETIME
from dram_operator.adapters.releases.state import Committed, Reader
from dram_operator.adapters.resources import Resource
from dram_operator.cli.cluster import Cluster
from dram_operator.cli.doctor.findings import Finding, Findings, bad, good, unknown
from dram_operator.cli.doctor.installation import Installation
from dram_operator.core.rollout.answers import Trouble
from dram_operator.core.rollout.recording import AGES, KNOWN
from dram_operator.errors import NotFound, Refused, RepositoryInvalid, Unavailable

CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
SOON = timedelta(days=30)
"""Offline keys take people together: a month is not early."""
RENEW = "sign everything anew where the offline keys are: dram keys recover"
CONNECT_SECONDS = 5.0
REPORTING = f'count(dram_device_info) or sum({KNOWN}{{within="{AGES[0]}"}})'
"""Devices that report: each by itself, or as counts."""


async def check_storage(site: Installation) -> Findings:
    """The installation's default storage can be reached."""
    storage = site.settings.storage
    if storage is None:
        yield unknown("storage", "the installation has none: every job names its own in spec.storage")
        return
    url = urlsplit(storage.endpoint or "https://s3.amazonaws.com")
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(url.hostname, url.port or (443 if url.scheme == "https" else 80))
        writer.close()
    except (OSError, TimeoutError) as error:
        yield _unreachable("storage", f"{url.netloc} cannot be reached: {str(error) or 'no answer'}", site)
    else:
        yield good("storage", f"{storage.uri} at {url.netloc} can be reached; jobs bring their own credentials")


async def check_repository(cluster: Cluster, site: Installation) -> Findings:
    """The release repository can be read, is signed by the right keys, and nothing in it expires soon."""
    settings = site.settings
    if settings.releases_uri is None:
        yield unknown("releases", "there is no release repository: EdgeRollouts are not served (releases.uri)")
        return
    try:
        root = await _root(cluster, site)
        committed = await asyncio.to_thread(Reader(_bucket(site), root).committed)
    except Unavailable as error:
        yield _unreachable("releases", str(error), site)
        return
    except RepositoryInvalid as error:
        yield bad("releases", str(error), RENEW)
        return
    except NotFound:
        # The chart's `tryout` begins the repository in the pod, and leaves the root there.
        yield unknown("releases", "the pinned root lies in the operator's pod only", site.exec_remedy)
        return
    except Refused as error:
        remedy = (
            "check releases.credentialsSecret"
            if site.is_inside
            else f"give credentials as for AWS, or {site.exec_remedy}"
        )
        yield (bad if site.is_inside else unknown)("releases", str(error), remedy)
        return
    sequence = committed.timestamp.version
    yield good(
        "releases", f"{settings.releases_uri}: commit {sequence} is signed by the keys that the pinned root leads to"
    )
    for finding in (*expiries(committed, datetime.now(UTC)), *_keys(site, committed)):
        yield finding


def expiries(committed: Committed, now: datetime) -> Iterator[Finding]:
    """Until when each role is good, those that somebody has to sign first."""
    renewed = TIMESTAMP_LIFETIME / 2
    left = committed.timestamp.expires - now
    check, until = "release timestamp", f"good until {committed.timestamp.expires:%Y-%m-%d %H:%M} UTC"
    if left <= timedelta():
        yield bad(check, f"expired: devices take nothing new ({until})", "the operator renews it: see its pods and log")
    elif left < renewed:
        yield bad(check, f"not renewed for {renewed} and more, {until}", "the operator renews it: see its pods and log")
    else:
        yield good(check, until)
    offline: dict[str, Signed] = {
        ROOT: committed.root,
        **{name: committed.roles[name] for name in ("targets", ARTIFACTS)},
    }
    for name, signed in offline.items():
        left, until = signed.expires - now, f"good until {signed.expires:%Y-%m-%d}"
        if left <= SOON:
            yield bad(f"release {name}", f"{'expired' if left <= timedelta() else 'expires soon'}: {until}", RENEW)
        else:
            yield good(f"release {name}", until)


def _keys(site: Installation, committed: Committed) -> Iterator[Finding]:
    """The keys in the pod are those that the repository names."""
    settings = site.settings
    if not site.is_inside:
        yield unknown("release keys", "keys are never read from the cluster", site.exec_remedy)
        return
    delegations = committed.roles["targets"].delegations
    roles = delegations.roles if delegations else None
    of_release = roles[ARTIFACTS].keyids if roles else []
    named = {
        "operator key": (settings.releases_operator_key, committed.root.roles[SNAPSHOT].keyids),
        "release key": (settings.releases_release_key, of_release),
    }
    for check, (path, keyids) in named.items():
        if path is None:
            yield unknown(check, "not in the cluster: artifacts wait for `dram release sign`")
            continue
        try:
            keyid = load_key(path).public_key.keyid
        except Refused as error:
            yield bad(check, str(error), "mount the PEM file that `dram keys init` wrote")
            continue
        if keyid in keyids:
            yield good(check, f"{keyid[:12]} is the one that the repository names")
        else:
            yield bad(
                check, f"{keyid[:12]} was rotated out", "put the new key into the Secret: dram keys rotate made it"
            )


async def check_metrics(site: Installation) -> Findings:
    """Every metrics server answers, and devices report to it."""
    if not site.settings.prometheus:
        yield unknown("prometheus", "no metrics server is named: rollouts wait for data (prometheus)")
    for one in site.settings.prometheus:
        check = f"prometheus {one.name}"
        secrets = (one.token_file, one.password_file, one.certificate_file, one.ca_file, *one.header_files.values())
        if not site.is_inside and any(secrets):
            yield unknown(check, f"{one.url}: its secrets are in the pod alone", site.exec_remedy)
            continue
        try:
            server = Prometheus(Endpoint(**one.model_dump(by_alias=False)))
        except EndpointInvalid as error:
            yield bad(check, str(error), "correct its url in the chart's prometheus list")
            continue
        try:
            answer = await server.query(REPORTING, datetime.now(UTC))
        finally:
            await server.close()
        if answer.trouble in (Trouble.UNREACHABLE, Trouble.TIMED_OUT):
            yield _unreachable(check, f"{one.url}: {answer.trouble.value}", site)
        elif answer.trouble:
            yield bad(check, f"{one.url}: {answer.trouble.value}", "check its url, ca, token and headers in the chart")
        else:
            devices = int(answer.samples[0].value) if answer.samples else 0
            yield good(check, f"{one.url} answers; {devices} devices report to it")


def _unreachable(check: str, message: str, site: Installation) -> Finding:
    """From elsewhere, an address of the cluster's own network says nothing."""
    if site.is_inside:
        return bad(check, message, "check the address, the network policies and the authority (ca)")
    return unknown(check, message, site.exec_remedy)


async def _root(cluster: Cluster, site: Installation) -> bytes:
    path = site.settings.releases_root
    assert path is not None
    if site.is_inside:
        return await asyncio.to_thread(path.read_bytes)
    assert site.deployment is not None
    name = f"{site.deployment['metadata']['name']}-releases"
    found = await cluster.api.get(CONFIG_MAPS, site.namespace, name)
    return str(found["data"]["root.json"]).encode()


def _bucket(site: Installation) -> Bucket:
    settings = site.settings
    assert settings.releases_uri is not None
    secret, token = settings.releases_aws_secret_access_key, settings.releases_aws_session_token
    return Bucket(
        BucketSettings(
            settings.releases_uri,
            settings.releases_endpoint,
            settings.releases_region,
            settings.releases_ca if site.is_inside else None,
            settings.releases_aws_access_key_id,
            secret.get_secret_value() if secret else None,
            token.get_secret_value() if token else None,
        )
    )
