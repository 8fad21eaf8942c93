"""Signing kernel modules: what the kernel's own `sign-file` appends to them, byte for byte. Nothing of Kubernetes.

A `Signer` is made once, of a certificate and of whatever makes raw signatures, and signs many files. Memory does not
depend on their size.
"""
