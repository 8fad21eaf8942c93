"""Loads out-of-tree kernel modules on the nodes of Kubernetes and OpenShift clusters, through plugins."""

__version__ = "0.1.0"

NAMESPACE = "openshift-kmm"
"""Where the operator runs, as far as nothing names another namespace."""
