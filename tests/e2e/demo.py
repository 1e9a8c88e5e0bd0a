"""`python -m tests.e2e.demo [down]`: the whole story on a cluster, left running, and how to look at it.

KUBECONFIG's cluster, else a node that is started here. It is told in the words of the tests on a cluster: what they check of
devices and rollouts is what is shown.
"""

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mypy_boto3_s3 import S3Client

from tests.cluster.api import Api, Object, manifests, wait_until
from tests.cluster.binaries import BinaryMissing, binary
from tests.cluster.folders import REPOSITORY
from tests.cluster.node import Node, NodeImpossible
from tests.cluster.rounds import Rounds
from tests.e2e import cluster as clusters
from tests.e2e.cluster import Cluster, ClusterUnknown
from tests.e2e.fleet import SIZE, Fleet, enrol
from tests.e2e.installation import NAMESPACE, RELEASE
from tests.e2e.models import golden_for, noisy, put
from tests.e2e.rollout_story import GOLDEN, RolloutStory
from tests.e2e.tryout import Tryout
from tests.monitoring.boards import filled, queries
from tests.monitoring.conftest import Asked

EXAMPLE = REPOSITORY / "examples" / "tryout"
HOME, NAME, VARIANT = "default", "sample", "gguf-q8-0"
"""Namespace and name of the example's job and rollout."""
TOLD = ("DistillationJob", "EdgeRollout")
JOB_SECONDS = 900
DELIVERY = {"pollSeconds": 5, "activePollSeconds": 5, "backoffSeconds": 10}
"""As in the tutorial: for watching."""
LOOK = """
Look at it:

  export KUBECONFIG={kubeconfig} PATH={path}:$PATH
  kubectl get distillationjobs,edgerollouts,pods --namespace {home}
  kubectl dram status {name} --namespace {home}
  kubectl dram rollout status {name} --namespace {home}
  kubectl --namespace {system} port-forward service/{release}-tryout-prometheus 9090     # http://127.0.0.1:9090
  kubectl --namespace {home} port-forward pod/device-0 8080     # an OpenAI-compatible endpoint: http://127.0.0.1:8080/v1

Take it down:

  make demo-cluster-down
"""


@dataclass
class Log:
    """What is done, step by step, on standard output."""

    seconds: dict[str, float] = field(default_factory=dict)
    """What each step took."""

    def say(self, text: str) -> None:
        """One line, at once."""
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """What a block does."""
        self.say(f"==> {name}")
        begun = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - begun
        self.say(f"    {self.seconds[name]:.0f} s")

    def table(self) -> str:
        """Every step and its time, in Markdown."""
        rows = [f"| {name} | {seconds:.0f} s |" for name, seconds in self.seconds.items()]
        return "\n".join(["| step | time |", "| --- | --- |", *rows, f"| all | {sum(self.seconds.values()):.0f} s |"])


@dataclass
class Events(Rounds):
    """Tells what the operator says of jobs and rollouts, while it says it."""

    api: Api
    log: Log
    told: set[str] = field(default_factory=set)

    def look(self) -> bool:
        """Tell what is new."""
        for event in sorted(
            self.api.list("Event", HOME), key=lambda event: str(event["metadata"]["creationTimestamp"])
        ):
            uid = event["metadata"]["uid"]
            if event["involvedObject"]["kind"] in TOLD and uid not in self.told:
                self.told.add(uid)
                self.log.say(f"    {event['involvedObject']['kind']} {event['reason']}: {event['message']}")
        return self._stop.wait(1)


def cluster(log: Log) -> Cluster:
    """KUBECONFIG's cluster, or a node that stays up."""
    if kubeconfig := os.environ.get("KUBECONFIG"):
        return clusters.given(Path(kubeconfig), reaches_us=False)
    node = Node()
    with log.step("a node"):
        node.ensure()
    with log.step("images, built and brought to it"):
        return clusters.own(node)


def play(here: Cluster, log: Log) -> RolloutStory:
    """The story, from `helm install` on; returns its rollout. ClusterUnknown where Dram is installed already."""
    if here.api.find("Deployment", RELEASE, NAMESPACE):
        raise ClusterUnknown(f"{NAMESPACE}/{RELEASE} is there already: `make demo-cluster-down` takes it away.")
    tryout = Tryout(here, NAMESPACE, RELEASE)
    with log.step("helm install, until the operator and its servers are ready"):
        tryout.install(delivery=DELIVERY)
    with Events(here.api, log):
        with log.step("a DistillationJob, until it has succeeded"):
            job = distil(here.api)
        return roll_out(tryout, job, log)


def roll_out(tryout: Tryout, job: Object, log: Log) -> RolloutStory:
    """The second half: what the job made goes to devices, and something worse comes back."""
    with tempfile.TemporaryDirectory() as made, tryout.store() as store, tryout.prometheus() as prometheus:
        folder, model = Path(made), model_of(job, store)
        with log.step(f"{SIZE} devices, until Prometheus has seen them"):
            root = store.get_object(Bucket="releases", Key="metadata/1.root.json")["Body"].read().decode()
            fleet = started(tryout, root, golden_for(model, folder), folder)
            rollout = RolloutStory(tryout.api, prometheus, fleet, HOME, NAME)
            wait_until(lambda: set(rollout.running()) == set(fleet.ids), "their telemetry", explain=fleet.explain)
        with log.step("its variant on one device, three, all"):
            rollout.offer({"jobRef": {"name": NAME, "variant": VARIANT}}, GOLDEN)
            stable = rollout.wait_completed(1)
        with log.step("a worse release, until every device is back"):
            rollout.offer(put(store, "demo", "worse", noisy(model, folder)).spec, GOLDEN)
            record = rollout.wait_ended(2)
            assert record["outcome"] == "RolledBack", rollout.explain()
            rollout.wait_back(stable)
        with log.step("every query of the dashboards"):
            log.say(f"    {answered(prometheus)}")
    return rollout


def distil(api: Api) -> Object:
    """Apply the example's job; returns its status once it has succeeded."""
    for obj in manifests((EXAMPLE / "job.yaml").read_text()):
        api.apply(obj)

    def succeeded() -> Object | None:
        status: Object = api.get("DistillationJob", NAME, HOME).get("status", {})
        (condition,) = [one for one in status.get("conditions", []) if one["type"] == "Succeeded"] or [{}]
        assert condition.get("status") != "False", f"{condition['reason']}: {condition['message']}"
        return status if condition.get("status") == "True" else None

    return wait_until(succeeded, "the job to succeed", patience_seconds=JOB_SECONDS)


def model_of(job: Object, store: S3Client) -> bytes:
    """The file of the job's only variant."""
    (variant,) = job["variants"]
    bucket, _, folder = variant["uri"].removeprefix("s3://").partition("/")
    (key,) = [
        entry["Key"]
        for entry in store.list_objects_v2(Bucket=bucket, Prefix=f"{folder}/")["Contents"]
        if entry["Key"].endswith(".gguf")
    ]
    return store.get_object(Bucket=bucket, Key=key)["Body"].read()


def started(tryout: Tryout, root: str, golden: str, folder: Path) -> Fleet:
    """Devices with ids of their own, and somebody who asks them."""
    channel = f"{HOME}/{NAME}"
    fleet = Fleet(tryout.cluster, tryout.repository, root, HOME, channel, enrol(channel, folder))
    fleet.start(golden)
    return fleet


def answered(prometheus: str) -> str:
    """Ask everything that the dashboards ask; says how much of it has an answer here, and what has none."""
    server = Asked(prometheus.removeprefix("http://"))
    every = list(queries())
    silent = [asked.where for asked in every if not server.values(filled(asked.expr))]
    return f"{len(every)} asked, {len(every) - len(silent)} with data" + "".join(f"\n    none: {one}" for one in silent)


def leave(here: Cluster) -> None:
    """Take away what the story made; the CRDs stay, as after every `helm uninstall`."""
    fleet = Fleet(here, "", "", HOME, f"{HOME}/{NAME}", ())
    rollout = RolloutStory(here.api, "", fleet, HOME, NAME)
    if here.api.find("CustomResourceDefinition", "edgerollouts.dram.dev"):
        rollout.delete()
        here.api.delete("DistillationJob", NAME, HOME)
    fleet.stop()
    Tryout(here, NAMESPACE, RELEASE).uninstall()


def main(arguments: list[str]) -> None:
    """The command line."""
    log = Log()
    kubeconfig = os.environ.get("KUBECONFIG")
    match arguments:
        case []:
            here = cluster(log)
            play(here, log)
            path = f"{Path(sys.executable).parent}:{binary('kubectl').parent}"
            words = {"home": HOME, "name": NAME, "system": NAMESPACE, "release": RELEASE}
            log.say(f"\n{log.table()}\n{LOOK.format(kubeconfig=here.kubeconfig, path=path, **words)}")
        case ["down"] if kubeconfig:
            leave(Cluster(Path(kubeconfig), "", "", "", ""))
        case ["down"]:
            Node().down()
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (NodeImpossible, ClusterUnknown, BinaryMissing) as error:
        sys.exit(str(error))
