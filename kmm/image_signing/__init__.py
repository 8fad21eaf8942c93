"""Signing the modules inside an image: what is pushed is one layer of signed modules. Nothing of Kubernetes.

It brings together `kmm.oci`, which knows images, and `kmm.signing`, which knows modules.
"""
