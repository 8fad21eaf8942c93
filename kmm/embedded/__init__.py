"""A cluster in a process: API server, controllers, kubelet; for demos, tests and vendors (docs/embedded.md)."""
