"""A real etcd and kube-apiserver, and on request kube-controller-manager, on free loopback ports. No root."""

import shutil
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import urllib3

from tests.cluster import audit, pki
from tests.cluster.api import Api, ApiError, Object, wait_until
from tests.cluster.binaries import binary
from tests.cluster.processes import Processes, free_ports, fresh_folder

SERVICE_RANGE = "10.96.0.0/16"
STRICT = "OwnerReferencesPermissionEnforcement"
"""Admission that some distributions (OpenShift) switch on: owners of an object need more rights than its creation."""
ISSUER = "https://kubernetes.default.svc"
API_NAMES = ("127.0.0.1", "10.96.0.1", "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")


class ControlPlane:
    """`with ControlPlane() as plane:` runs until the block ends; nothing of it stays behind.

    With `controllers`, kube-controller-manager runs too (Jobs make pods, namespaces get their service account, owners are
    garbage-collected); there is no node, so pods stay pending until a test patches their status.
    """

    def __init__(
        self, *, controllers: bool = False, folder: Path | None = None, node_address: str | None = None
    ) -> None:
        """`folder` keeps the state where the caller says; `node_address` lets kubelets and pods reach the API there."""
        self._controllers = controllers
        self._given_folder = folder
        self._node_address = node_address
        self._etcd_port, self._peer_port, self._api_port = free_ports(3)

    def __enter__(self) -> Self:
        self.folder = self._given_folder or fresh_folder("plane")
        self.processes = Processes(self.folder)
        try:
            self._prepare()
            self._start()
        except BaseException:
            self._clean()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._clean()

    @property
    def url(self) -> str:
        """The API server's address."""
        return f"https://127.0.0.1:{self._api_port}"

    @property
    def audit_log(self) -> Path:
        """The API server's audit log, JSON Lines, one event at each stage of a request."""
        return self.folder / "audit.jsonl"

    def audit_verbs(self, user: str) -> set[audit.Access]:
        """Every (group, resource, verb) that a user asked for, refused ones included."""
        return audit.accesses(self.audit_log, user)

    def api(self, kubeconfig: Path | None = None) -> Api:
        """Requests as the administrator, or as the user of a kubeconfig."""
        return Api(kubeconfig or self.kubeconfig)

    def kubeconfig_for(
        self,
        user: str,
        rules: list[Object] | None = None,
        *,
        groups: tuple[str, ...] = (),
        namespace: str | None = None,
    ) -> Path:
        """A kubeconfig for a user who may do what `rules` say: in one namespace, or everywhere."""
        self.grant(rules or [], {"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}, namespace)
        entry = pki.certificate_user(self._authority.client(user, groups))
        return self._write_kubeconfig(user, entry, namespace or "default")

    def service_account_kubeconfig(
        self, namespace: str, name: str, rules: list[Object] | None = None, *, everywhere: bool = True
    ) -> Path:
        """A kubeconfig with a service account's token (`system:serviceaccount:<namespace>:<name>` in the audit log)."""
        account = {"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": name, "namespace": namespace}}
        api = self.api()
        api.apply(account)
        self.grant(
            rules or [],
            {"kind": "ServiceAccount", "name": name, "namespace": namespace},
            None if everywhere else namespace,
        )
        asked = {"spec": {"expirationSeconds": 86_400, "audiences": [ISSUER]}}
        token = api.create_in("ServiceAccount", name, namespace, "token", asked)["status"]["token"]
        return self._write_kubeconfig(f"{namespace}-{name}", {"token": token}, namespace)

    def grant(self, rules: list[Object], subject: dict[str, str], namespace: str | None = None) -> None:
        """Bind RBAC rules to a subject, in one namespace or in all, and wait until they hold."""
        scope = "" if namespace else "Cluster"
        metadata = {"name": f"test:{subject['name']}", **({"namespace": namespace} if namespace else {})}
        version = {"apiVersion": "rbac.authorization.k8s.io/v1"}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": f"{scope}Role", "name": metadata["name"]}
        api = self.api()
        api.apply({**version, "kind": f"{scope}Role", "metadata": metadata, "rules": rules})
        binding = {"kind": f"{scope}RoleBinding", "metadata": metadata, "roleRef": reference, "subjects": [subject]}
        api.apply({**version, **binding})
        asked = partial(_are_allowed, api, subject, rules, namespace)
        wait_until(asked, f"{subject['name']} to be allowed what its rules say")

    def restart_api_server(self) -> None:
        """SIGKILL the API server and start it again on the same data."""
        self.processes.kill("kube-apiserver")
        self._start_api_server()

    def _write_kubeconfig(self, name: str, user: dict[str, str], namespace: str = "default") -> Path:
        path = self.folder / f"{name.replace(':', '-')}.kubeconfig"
        return pki.write_kubeconfig(path, self.url, self._authority.certificate, user, namespace)

    def component_kubeconfig(self, user: str, group: str = "system:masters") -> Path:
        """A kubeconfig for a part of the cluster itself."""
        return self._write_kubeconfig(user, pki.certificate_user(self._authority.client(user, (group,))))

    def serving_certificate(self, name: str, alternatives: tuple[str, ...]) -> None:
        """Write `<name>.crt` and `<name>.key` for a server into the state folder."""
        self._authority.server(name, alternatives).write(self.folder, name)

    def _prepare(self) -> None:
        self._authority = pki.Authority()
        self.serving_certificate("api", (*API_NAMES, *([self._node_address] if self._node_address else [])))
        (self.folder / "ca.crt").write_bytes(self._authority.certificate)
        signing = pki.new_key()
        (self.folder / "tokens.key").write_bytes(pki.key_pem(signing))
        (self.folder / "tokens.pub").write_bytes(pki.public_pem(signing))
        (self.folder / "audit.yaml").write_text(audit.POLICY)
        self.kubeconfig = self.component_kubeconfig("admin")
        self._authority.client("kubelet-client", ("system:masters",)).write(self.folder, "kubelet-client")

    def _start(self) -> None:
        address, peers = f"http://127.0.0.1:{self._etcd_port}", f"http://127.0.0.1:{self._peer_port}"
        self.processes.start(
            "etcd",
            [
                *(str(binary("etcd")), "--data-dir=etcd", "--unsafe-no-fsync", "--log-level=warn"),
                *(f"--listen-client-urls={address}", f"--advertise-client-urls={address}"),
                *(f"--listen-peer-urls={peers}", f"--initial-advertise-peer-urls={peers}"),
                f"--initial-cluster=default={peers}",
            ],
        )
        self._start_api_server()
        if self._controllers:
            self._start_controllers()

    def _start_api_server(self) -> None:
        self.processes.start(
            "kube-apiserver",
            [
                *(str(binary("kube-apiserver")), f"--etcd-servers=http://127.0.0.1:{self._etcd_port}"),
                *(f"--secure-port={self._api_port}", "--allow-privileged", *self._reach()),
                *("--tls-cert-file=api.crt", "--tls-private-key-file=api.key", "--client-ca-file=ca.crt"),
                *(f"--service-cluster-ip-range={SERVICE_RANGE}", f"--service-account-issuer={ISSUER}"),
                *("--service-account-key-file=tokens.pub", "--service-account-signing-key-file=tokens.key"),
                *("--audit-policy-file=audit.yaml", "--audit-log-path=audit.jsonl"),
            ],
        )
        self.processes.wait_ready("kube-apiserver", self._is_ready)

    def _reach(self) -> list[str]:
        if self._node_address is None:
            return ["--bind-address=127.0.0.1", "--authorization-mode=RBAC", f"--enable-admission-plugins={STRICT}"]
        return [
            *("--bind-address=0.0.0.0", f"--advertise-address={self._node_address}", "--authorization-mode=Node,RBAC"),
            *(f"--enable-admission-plugins=NodeRestriction,{STRICT}", "--kubelet-preferred-address-types=InternalIP"),
            *("--kubelet-client-certificate=kubelet-client.crt", "--kubelet-client-key=kubelet-client.key"),
        ]

    def _start_controllers(self) -> None:
        self.processes.start(
            "kube-controller-manager",
            [
                *(
                    str(binary("kube-controller-manager")),
                    f"--kubeconfig={self.component_kubeconfig('system:kube-controller-manager')}",
                ),
                *("--service-account-private-key-file=tokens.key", "--root-ca-file=ca.crt", "--secure-port=0"),
                *("--leader-elect=false", "--use-service-account-credentials=false"),
            ],
        )

        self.processes.wait_ready(
            "kube-controller-manager", lambda: self.api().find("ServiceAccount", "default", "default") is not None
        )

    def _is_ready(self) -> bool:
        try:
            return self.api().request("GET", "/readyz") == "ok"
        except (ApiError, urllib3.exceptions.HTTPError):
            return False

    def _clean(self) -> None:
        self.processes.stop_all()
        if self._given_folder is None:
            shutil.rmtree(self.folder, ignore_errors=True)


def _are_allowed(api: Api, subject: dict[str, str], rules: list[Object], namespace: str | None) -> bool:
    """Whether the authorizer, which reads rules from a watch, knows these already."""
    account = subject["kind"] == "ServiceAccount"
    user = f"system:serviceaccount:{subject['namespace']}:{subject['name']}" if account else subject["name"]
    version = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {}}
    for rule in rules:
        resource, _, subresource = rule["resources"][-1].partition("/")
        asked = {"group": rule["apiGroups"][-1], "resource": resource, "subresource": subresource}
        asked |= {"verb": rule["verbs"][-1], "namespace": namespace or "default"}
        if not api.create({**version, "spec": {"user": user, "resourceAttributes": asked}})["status"]["allowed"]:
            return False
    return True
