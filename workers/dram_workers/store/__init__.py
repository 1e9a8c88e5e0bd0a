"""The object store: where every stage's result lives, and the manifests that make it trustworthy."""
