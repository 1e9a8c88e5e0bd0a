"""The real parts that tests run against: control plane, node, object store, images."""
