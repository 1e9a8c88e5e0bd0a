"""The product on a whole cluster: installed by its chart, driven by manifests, disturbed on purpose."""
