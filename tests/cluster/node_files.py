"""The configuration files of a node's parts."""

import json
from pathlib import Path

ADDRESS = "10.88.0.1"
POD_RANGE = "10.88.0.0/16"
CNI_PLUGINS = "/usr/lib/cni"
PAUSE_IMAGE = "dram.test/pause:1"

COREFILE = """.:53 {{
  bind {address}
  errors
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {kubeconfig}
    ttl 1
  }}
}}
"""

# Without CAP_SYS_RESOURCE, as in many containers, runc cannot lower a score (restrict_oom_score_adj).
CONTAINERD = """version = 2
root = "{folder}/containerd"
state = "{folder}/run"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{folder}/cni"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/containerd/opt"
"""

# Kernels with cgroup v1 controllers, swap and small disks are fine for tests (failCgroupV1, failSwapOn, evictionHard). A changed ConfigMap
# reaches its pods in seconds instead of a minute (syncFrequency).
KUBELET = """apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: {address}
authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true}}, x509: {{clientCAFile: {folder}/ca.crt}}}}
authorization: {{mode: Webhook}}
cgroupDriver: cgroupfs
clusterDNS: [{address}]
clusterDomain: cluster.local
containerRuntimeEndpoint: unix://{folder}/containerd.sock
enforceNodeAllocatable: []
evictionHard: {{}}
failCgroupV1: false
failSwapOn: false
imageGCHighThresholdPercent: 100
localStorageCapacityIsolation: false
makeIPTablesUtilChains: false
resolvConf: /dev/null
syncFrequency: 10s
tlsCertFile: {folder}/serving.crt
tlsPrivateKeyFile: {folder}/serving.key
"""


def write(folder: Path, bridge: str, dns_kubeconfig: Path) -> None:
    """Write the files of CoreDNS, containerd, the pod network and the kubelet into the node's folder."""
    (folder / "Corefile").write_text(COREFILE.format(address=ADDRESS, kubeconfig=dns_kubeconfig))
    (folder / "containerd.toml").write_text(CONTAINERD.format(folder=folder, pause=PAUSE_IMAGE, plugins=CNI_PLUGINS))
    (folder / "kubelet.yaml").write_text(KUBELET.format(folder=folder, address=ADDRESS))
    (folder / "cni").mkdir(exist_ok=True)
    network = {
        "type": "bridge",
        "bridge": bridge,
        "isGateway": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": f"{folder}/addresses",
            "ranges": [[{"subnet": POD_RANGE, "gateway": ADDRESS}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    plugins = {"cniVersion": "1.0.0", "name": "dram", "plugins": [network]}
    (folder / "cni" / "10-dram.conflist").write_text(json.dumps(plugins))
