"""`kmm demo`: the whole life of Modules in a cluster and a registry of their own, asserted as it is shown."""
