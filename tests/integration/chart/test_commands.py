"""The admission policy: a command on a rollout is given in one's own name, and by those who may."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from dram_operator.core.rollout.commands import ANNOTATION, Command, Verb
from tests.builders import a_rollout
from tests.cluster.api import Api, ApiError, Object, wait_until
from tests.cluster.controlplane import ControlPlane
from tests.integration.chart.rendering import of_kind, render

NAMESPACE = "commands"
CRD = Path(__file__).parents[3] / "crds" / "dram.dev_edgerollouts.yaml"
POLICY = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
OFFICER, EDITOR = "olga@example.com", "emil@example.com"


def a_command(verb: Verb = Verb.APPROVE, *, who: str = OFFICER, number: int = 1, reason: str = "") -> Command:
    return Command(id=f"c-{number}", verb=verb, attempt=3, step=1, digest="ab" * 32, reason=reason, who=who)


@pytest.fixture(scope="module")
def admin(control_plane: ControlPlane) -> Iterator[Api]:
    """The administrator, with the policy in force in one namespace."""
    api = control_plane.api()
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    api.apply(yaml.safe_load(CRD.read_text()))
    objects = [obj for kind in POLICY for obj in of_kind(render(f"namespaces={{{NAMESPACE}}}"), kind)]
    for obj in objects:
        api.apply(obj)
    wait_until(lambda: is_served(api), "rollouts to be served")
    wait_until(lambda: is_in_force(api), "the policy to be in force")
    yield api
    for obj in objects:
        api.delete(obj["kind"], obj["metadata"]["name"])


def is_served(api: Api) -> bool:
    found = api.get("CustomResourceDefinition", "edgerollouts.dram.dev")["status"].get("conditions") or ()
    return any(c["type"] == "Established" and c["status"] == "True" for c in found)


def is_in_force(api: Api) -> bool:
    """Whether nonsense is refused by now; another one each time, because one that is there already is nobody's command."""
    try:
        api.apply(rollout("probe", f"nonsense {uuid.uuid4()}"))
    except ApiError as error:
        return "ValidatingAdmissionPolicy" in error.message
    return False


@pytest.fixture(scope="module")
def officer(control_plane: ControlPlane, admin: Api) -> Api:
    """Somebody who may do what the namespace's administrators may."""
    return control_plane.api(control_plane.kubeconfig_for(OFFICER, rules("edit", "commands"), namespace=NAMESPACE))


@pytest.fixture(scope="module")
def editor(control_plane: ControlPlane, admin: Api) -> Api:
    """Somebody who may edit."""
    return control_plane.api(control_plane.kubeconfig_for(EDITOR, rules("edit"), namespace=NAMESPACE))


def rules(*roles: str) -> list[Object]:
    """What the chart's roles for users allow."""
    named = {role["metadata"]["name"].rpartition("-")[2]: role["rules"] for role in of_kind(render(), "ClusterRole")}
    return [rule for role in roles for rule in named[role]]


@pytest.fixture
def name(admin: Api, request: pytest.FixtureRequest) -> Iterator[str]:
    """A rollout that nobody has told anything."""
    name = "r" + "".join(letter for letter in request.node.name if letter.isalnum()).lower()[-30:]
    admin.apply(rollout(name))
    yield name
    admin.delete("EdgeRollout", name, NAMESPACE)


def rollout(name: str, command: str | None = None) -> Object:
    made = a_rollout().named(name).having("metadata.namespace", NAMESPACE)
    return (made if command is None else made.having("metadata.annotations", {ANNOTATION: command})).manifest()


def give(api: Api, name: str, command: Command | str | None) -> None:
    """Write the annotation; None takes it away."""
    text = command.encode() if isinstance(command, Command) else command
    api.patch("EdgeRollout", name, NAMESPACE, {"metadata": {"annotations": {ANNOTATION: text}}})


def refusal(api: Api, name: str, command: Command | str | None) -> str:
    with pytest.raises(ApiError) as refused:
        give(api, name, command)
    assert refused.value.status in (403, 422)
    return refused.value.message


@pytest.mark.parametrize("verb", Verb)
def test_administrators_may_give_every_command_in_their_own_name(officer: Api, name: str, verb: Verb) -> None:
    give(officer, name, a_command(verb, reason='"quoted", \\ back\nslashed, "who":"somebody" – and ümlauts'))


@pytest.mark.parametrize("verb", [verb for verb in Verb if verb is not Verb.ABORT])
def test_editors_may_only_abort(editor: Api, name: str, verb: Verb) -> None:
    message = f"{EDITOR} may not {verb} rollouts: the verb {verb} on edgerollouts is missing"
    assert message in refusal(editor, name, a_command(verb, who=EDITOR))
    give(editor, name, a_command(Verb.ABORT, who=EDITOR))


@pytest.mark.parametrize("who", [EDITOR, f"x{OFFICER}", OFFICER.upper(), f"{OFFICER}x"])
def test_nobody_speaks_for_somebody_else(officer: Api, name: str, who: str) -> None:
    assert f"its who has to be {OFFICER}" in refusal(officer, name, a_command(who=who))


def test_a_new_rollout_brings_no_command_of_somebody_else(officer: Api) -> None:
    with pytest.raises(ApiError, match="its who has to be"):
        officer.apply(rollout("forged", a_command(who=EDITOR).encode()))


FORGED = {
    "spaces": json.dumps(json.loads(a_command().encode()), sort_keys=True),
    "another order": json.dumps(dict(reversed(json.loads(a_command().encode()).items())), separators=(",", ":")),
    "a second who in front": a_command(who=EDITOR).encode().replace("{", f'{{"who":"{OFFICER}",', 1),
    "a second verb behind a quote": a_command(Verb.ABORT, who=EDITOR, reason="R")
    .encode()
    .replace("R", f'","step":1,"verb":"approve","who":"{EDITOR}"}}'),
    "an escaped name": a_command(who=OFFICER).encode().replace("olga", "\\u006flga"),
    "an unknown verb": a_command().encode().replace("approve", "destroy"),
    "text behind it": a_command().encode() + " ",
    "not JSON": "approve",
    "a field too many": a_command().encode().replace("{", '{"a":1,', 1),
}


@pytest.mark.parametrize("text", FORGED.values(), ids=FORGED)
def test_only_the_one_form_of_a_command_is_taken(officer: Api, name: str, text: str) -> None:
    assert "write commands with `kubectl dram rollout`" in refusal(officer, name, text)


def test_an_abort_stays_until_it_is_handled(admin: Api, officer: Api, editor: Api, name: str) -> None:
    give(editor, name, a_command(Verb.ABORT, who=EDITOR, number=1))
    for other in (None, a_command(number=2)):
        assert "only another abort may take its place" in refusal(officer, name, other)
    give(officer, name, a_command(Verb.ABORT, number=3))

    handled = {"id": "c-3", "verb": "abort", "who": OFFICER, "outcome": "Applied", "handledAt": "2031-05-01T12:00:00Z"}
    admin.patch("EdgeRollout", name, NAMESPACE, {"status": {"commands": [handled]}}, subresource="status")
    give(officer, name, a_command(number=4))
    give(editor, name, None)


def test_other_edits_go_on_beside_a_command(editor: Api, officer: Api, name: str) -> None:
    give(officer, name, a_command())
    editor.patch("EdgeRollout", name, NAMESPACE, {"spec": {"paused": True}})


def test_commands_are_vouched_for_where_the_policy_is_and_only_there() -> None:
    for values, kubernetes, want in (
        ((), "1.34.0", True),
        ((), "1.29.0", False),
        (("commandPolicy=false",), "1.34.0", False),
    ):
        served = ("releases.uri=s3://releases", "releases.root=x", "releases.operatorKey.secret=keys")
        objects = render(*served, *values, kubernetes=kubernetes)
        (deployment,) = of_kind(objects, "Deployment")
        env = {one["name"]: one.get("value") for one in deployment["spec"]["template"]["spec"]["containers"][0]["env"]}
        assert env["DRAM_COMMANDS_VOUCHED"] == str(want).lower()
        assert [len(of_kind(objects, kind)) for kind in POLICY] == [want, want]
