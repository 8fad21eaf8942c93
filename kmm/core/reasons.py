"""The one vocabulary of reasons: what logs, events and conditions call things."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """One word each; its comment says when."""

    # The Module
    READY = "AllReady"  # all is as the specification wants
    NO_NODES = "NoNodes"  # no node is targeted
    INVALID_SPEC = "InvalidSpec"  # the specification cannot be read
    VERSION_UNSUPPORTED = "VersionUnsupported"  # ordered upgrade is not there yet
    NAMESPACE_NOT_PRIVILEGED = "NamespaceNotPrivileged"  # privileged pods are not allowed in the namespace
    PLUGIN_MISSING = "PluginMissing"  # no installed plugin offers what the Module asks for
    RENDERER_FAILED = "RendererFailed"  # a plugin raised, or rendered what it may not
    PLUGINS_AVAILABLE = "PluginsAvailable"  # every plugin that the Module needs is there
    NAME_TAKEN = "NameTaken"  # an object that is not ours has the name that ours would have
    # A kernel
    NO_MAPPING = "NoMapping"  # no kernel mapping fits
    MAPPING_UNREADABLE = "MappingUnreadable"  # the mapping cannot be used for this kernel
    LOADED = "Loaded"  # on every node of this kernel
    LOADING = "Loading"  # loaders are on their way
    # An image
    IMAGES_READY = "ImagesReady"  # every image is there, or its pull decides
    CHECKING_IMAGE = "CheckingImage"  # the registry is being asked
    REGISTRY_UNAVAILABLE = "RegistryUnavailable"  # the registry could not say
    REGISTRY_FORBIDDEN = "RegistryForbidden"  # the registry refuses to say
    ARCHITECTURE_MISSING = "ArchitectureMissing"  # the image lacks an architecture that nodes have
    BUILD_QUEUED = "BuildQueued"  # as many builds run as may
    BUILDING = "Building"
    BUILD_FAILED = "BuildFailed"
    BUILT_BUT_NOT_FOUND = "BuiltButNotFound"  # the task succeeded, but the registry has no image
    SIGNING = "Signing"
    SIGN_FAILED = "SignFailed"
    CERTIFICATE_CHANGED = "CertificateChanged"  # the image is signed with another one, and cannot be signed again
    INPUT_MISSING = "InputMissing"  # a ConfigMap, a Secret or a key that the task needs is not there
    # A loader
    LOAD_FAILED = "LoadFailed"
    KEY_REJECTED = "KeyRejected"  # the kernel does not trust the module's signature
    LOCKED_DOWN = "LockedDown"  # the kernel is locked down, or the pod may not load modules
    WRONG_FORMAT = "WrongFormat"  # the module is for another kernel or architecture
    UNKNOWN_SYMBOL = "UnknownSymbol"  # a module that it needs is missing
    FILE_MISSING = "FileMissing"  # a file that the load needs is not in the image or on the node
    MODULE_IN_USE = "ModuleInUse"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    # Others
    DEVICE_PLUGIN_READY = "DevicePluginReady"
    DEVICE_PLUGIN_STARTING = "DevicePluginStarting"
    NO_DEVICE_PLUGIN = "NoDevicePlugin"
    DRIFT_REVERTED = "DriftReverted"  # somebody edited an object of ours
    SELECTOR_CHANGED = "SelectorChanged"  # a DaemonSet with another selector is made anew: its driver is reloaded
    WRITE_REFUSED = "WriteRefused"  # the API server will not have an object or a change of ours
    TAKEN_OVER = "TakenOver"  # an object of the Go operator's is now kept by this one
    BUILD_STARTED = "BuildStarted"
    SIGN_STARTED = "SignStarted"
