"""The one vocabulary of reasons: what logs, events, conditions and refusals of plugins call things, and what to do.

docs/reasons.md is made from it, and `kmm status` quotes it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class About(StrEnum):
    """What a reason is about, in the order of a Module's life."""

    MODULE = "A Module"
    KERNEL = "A kernel"
    IMAGE = "An image"
    LOADER = "A loader"
    DEVICE_PLUGIN = "A device plugin"
    OBJECT = "An object in the cluster"
    PLUGIN = "A plugin of the operator"


class Reason(StrEnum):
    """One word each: its text, what it is about, what it means, why that comes to be, what an administrator does.

    `remedy` is empty where there is nothing to do. In commands, capitals stand for what is yours: NAMESPACE and
    MODULE for the Module's.
    """

    about: About
    meaning: str
    cause: str
    remedy: str

    def __new__(cls, value: str, about: About, meaning: str, cause: str, remedy: str = "") -> Self:
        """Make a member whose value is the word alone."""
        made = str.__new__(cls, value)
        made._value_ = value
        made.about, made.meaning, made.cause, made.remedy = about, meaning, cause, remedy
        return made

    # ── A Module ──────────────────────────────────────────────────────────────────────────────────────────────
    READY = (
        "AllReady",
        About.MODULE,
        "All is as the Module wants it.",
        "The driver is loaded on every targeted node whose kernel has a mapping, and the device plugin runs there.",
    )
    NO_NODES = (
        "NoNodes",
        About.MODULE,
        "The Module targets no node, so there is nothing to do.",
        "No node has all labels of spec.selector, or those that have them carry taints that spec.tolerations lacks.",
        (
            "If it should target some: `kubectl get nodes --show-labels`, then correct spec.selector or label the "
            "nodes. `kmm plan -f FILE.yaml --nodes nodes.json` says why each node is left out."
        ),
    )
    INVALID_SPEC = (
        "InvalidSpec",
        About.MODULE,
        "The specification cannot be used. What already runs for the Module is left as it is.",
        "A field is wrong, in a way that the API server could not see or did not check.",
        "`kubectl get module MODULE -n NAMESPACE -o yaml | kmm validate -` names each field and what would be right.",
    )
    VERSION_UNSUPPORTED = (
        "VersionUnsupported",
        About.MODULE,
        "The Module asks for an ordered upgrade, which this release cannot do yet. Nothing is changed for it.",
        "spec.moduleLoader.container.version is set.",
        "Delete the Module and create it again without version. That unloads the driver and loads it again.",
    )
    NAMESPACE_NOT_PRIVILEGED = (
        "NamespaceNotPrivileged",
        About.MODULE,
        "Nothing is done, since the Module's namespace may not run privileged pods, and loaders are such.",
        "On plain Kubernetes, loaders run in the operator's own namespace, and where an administrator allowed them.",
        (
            "`kubectl label namespace NAMESPACE pod-security.kubernetes.io/enforce=privileged`, or add it to "
            "privilegedNamespaces in the operator's configuration."
        ),
    )
    NOT_SEEN = (
        "NotSeenYet",
        About.MODULE,
        "The operator has not looked at the Module, or at its latest change, yet.",
        "It was made or changed a moment ago, or no operator leads.",
        "`kmm status` tells first whether an operator leads. If none does: `kubectl logs -n OPERATOR_NAMESPACE POD`.",
    )
    DELETING = (
        "Deleting",
        About.MODULE,
        "The Module is being deleted, and its driver unloaded.",
        "Somebody deleted it.",
    )
    PLUGIN_MISSING = (
        "PluginMissing",
        About.MODULE,
        "The Module needs a builder, signer, device-plugin renderer or driver that the operator does not have.",
        (
            "No installed plugin offers one of that name, or the plugin was refused; or several are installed and "
            "nothing says which."
        ),
        (
            "`kmm plugins`, where the operator runs, lists what there is and what was refused. Install the plugin, "
            "or correct the name in the Module."
        ),
    )
    RENDERER_FAILED = (
        "RendererFailed",
        About.MODULE,
        "A plugin could not make the objects for the Module, or made some that it may not make.",
        (
            "The Module's params ask for what the plugin does not know or does not allow: then the message names the "
            "field. Or it is a fault in that plugin."
        ),
        (
            "Correct the field that the message names. Where it names none, give the message to whoever maintains "
            "the plugin; an older release of it may do."
        ),
    )
    PLUGINS_AVAILABLE = (
        "PluginsAvailable",
        About.MODULE,
        "Every plugin that the Module needs is there.",
        "They are installed, and none of those was refused.",
    )
    # ── A kernel ──────────────────────────────────────────────────────────────────────────────────────────────
    NO_MAPPING = (
        "NoMapping",
        About.KERNEL,
        "The Module does not say which image is for this kernel. Nodes that run it get no driver.",
        "No literal and no regexp of spec.moduleLoader.container.kernelMappings fits, often after an upgrade.",
        "Add a mapping for the kernel. `kmm plan -f FILE.yaml --nodes nodes.json` shows which fits which.",
    )
    MAPPING_UNREADABLE = (
        "MappingUnreadable",
        About.KERNEL,
        "The mapping that fits this kernel cannot be used.",
        "With this kernel filled in, something in it is wrong, such as an image name with an unknown variable.",
        "Correct what the message names. `kmm validate FILE.yaml` checks the whole Module.",
    )
    LOADING = (
        "Loading",
        About.KERNEL,
        "Loaders are on their way: not all nodes of this kernel have the driver yet.",
        "Pods are being scheduled, images pulled, or modprobe is at work.",
        (
            "If it stays so: `kubectl get pods -n NAMESPACE -l kmm.node.kubernetes.io/module.name=MODULE -o wide`, "
            "then `kubectl describe pod` of one that is not ready."
        ),
    )
    LOADED = (
        "Loaded",
        About.KERNEL,
        "The driver is loaded on every targeted node of this kernel.",
        "Every loader is available.",
    )
    # ── An image ──────────────────────────────────────────────────────────────────────────────────────────────
    IMAGES_READY = (
        "ImagesReady",
        About.IMAGE,
        "Every image is there, or the pull on the nodes decides.",
        "The registry has them; or the mapping neither builds nor signs, so that nothing needs to be asked first.",
    )
    CHECKING_IMAGE = (
        "CheckingImage",
        About.IMAGE,
        "The registry is being asked whether the image exists.",
        "The Module or its kernel is new, or a build has just ended. It takes seconds.",
    )
    REGISTRY_UNAVAILABLE = (
        "RegistryUnavailable",
        About.IMAGE,
        "The registry did not say whether the image exists. Nothing is built meanwhile, and what runs goes on.",
        "It is down, overloaded or unreachable from the operator, or its certificate is not trusted.",
        (
            "Look at the message. For a certificate: caFile or registries.HOST.caFile in the operator's "
            "configuration. It is asked again by itself."
        ),
    )
    REGISTRY_FORBIDDEN = (
        "RegistryForbidden",
        About.IMAGE,
        "The registry refuses to say whether the image exists.",
        "The credentials are missing or wrong, or the repository does not exist and the registry will not admit it.",
        (
            "Check spec.imageRepoSecret and the Secret that it names. If a refusal of this registry means that the "
            "image is missing: registries.HOST.deniedMeansMissing in the operator's configuration."
        ),
    )
    ARCHITECTURE_MISSING = (
        "ArchitectureMissing",
        About.IMAGE,
        "The image exists, but not for an architecture that targeted nodes have.",
        "It was pushed for some architectures only.",
        (
            "Push the image for the architecture that the message names, or narrow spec.selector, as with "
            "`kubernetes.io/arch: amd64`."
        ),
    )
    BUILDER_UNDECIDED = (
        "BuilderUndecided",
        About.IMAGE,
        "What is to build the image is not known yet. Nothing is started meanwhile, and what runs goes on.",
        (
            "Neither the Module nor the configuration names a builder, and the API server did not say whether it has "
            "OpenShift's builds, which would decide it."
        ),
        (
            "It is asked again by itself. `kubectl get --raw /apis/build.openshift.io/v1` shows what it answers. To "
            "decide it: build.builder in the Module, or builder in the operator's configuration."
        ),
    )
    TASKS_UNKNOWN = (
        "TasksUnknown",
        About.IMAGE,
        "Whether a build or signature is under way is not known. None is started meanwhile, and what runs goes on.",
        (
            "The API server does not list the kind of object that makes the image, such as OpenShift's Builds, "
            "whose API group may be away while all others answer."
        ),
        (
            "It is asked again by itself. `kubectl get apiservices` shows what is away. If the message says "
            "`forbidden`, the operator lacks rights (`kmm manifests rbac`)."
        ),
    )
    BASE_IMAGE_MISSING = (
        "BaseImageMissing",
        About.IMAGE,
        "There is no image to build the driver in for this kernel, so nothing is built. What runs goes on.",
        (
            "The Dockerfile uses a build argument such as DTK_AUTO, and what lists such images, on OpenShift the "
            "ImageStream driver-toolkit, has none for the operating system of the kernel's nodes."
        ),
        (
            "The message names the versions that there are. `kubectl get imagestream driver-toolkit -n openshift -o "
            "yaml` shows the list. Else set the argument in build.buildArgs, or name an image in FROM."
        ),
    )
    BASE_IMAGE_UNDECIDED = (
        "BaseImageUndecided",
        About.IMAGE,
        (
            "Which image the driver is to be built in is not known yet. Nothing is started meanwhile; what runs goes "
            "on."
        ),
        (
            "What lists such images has not been read, or the nodes do not say which release they run, so that the "
            "images themselves are looked into."
        ),
        (
            "It is asked again by itself; images that take long to read get more time each time. A refusal is about "
            "the operator's rights (`kmm manifests rbac`) or its credentials for these images (pullSecretFile). To "
            "decide at once: set the argument that the message names in build.buildArgs."
        ),
    )
    FIELDS_IGNORED = (
        "FieldsIgnored",
        About.IMAGE,
        "Something that the Module says of a build is not used, since its builder has no means for it.",
        (
            "A field is for other builders. A Build of OpenShift's reaches registries as the cluster is configured, "
            "and not as a Module says."
        ),
        (
            "Take it out of the Module, or name another builder in build.builder. For OpenShift's builds: set "
            "insecureRegistries or additionalTrustedCA in image.config.openshift.io."
        ),
    )
    BUILD_QUEUED = (
        "BuildQueued",
        About.IMAGE,
        "A build or signature waits for its turn.",
        "As many run as may at once: maxBuilds in the operator's configuration. It begins by itself.",
    )
    BUILD_STARTED = (
        "BuildStarted",
        About.IMAGE,
        "A build of the image was started.",
        "The registry does not have it, and the mapping says how to build it.",
        (
            "nothing, but where its event is a warning: the operator sets the build arguments that it names itself, "
            "so take them out of buildArgs, or call yours otherwise."
        ),
    )
    BUILDING = (
        "Building",
        About.IMAGE,
        "The image is being built.",
        "The registry does not have it, and the mapping says how to build it.",
    )
    BUILD_FAILED = (
        "BuildFailed",
        About.IMAGE,
        "The build of the image failed. It is tried again after 1 minute, then at growing intervals up to 1 hour.",
        "Often the Dockerfile, a base image that cannot be pulled, or no right to push.",
        (
            "The message is what the build said last; for all of it: `kubectl get pods -n NAMESPACE -l "
            "kmm.node.kubernetes.io/job-type=build`, then `kubectl logs`. A change of the Dockerfile or of a Secret "
            "starts it at once."
        ),
    )
    BUILT_BUT_NOT_FOUND = (
        "BuiltButNotFound",
        About.IMAGE,
        "The build or signature succeeded, but the registry does not have the image.",
        "It was pushed under another name, or the registry dropped it, or takes long to show it.",
        "Compare containerImage with what the task pushed: `kubectl logs` of its pod. It is tried again by itself.",
    )
    SIGN_STARTED = (
        "SignStarted",
        About.IMAGE,
        "Signing the modules in the image was started.",
        "The registry does not have the signed image, and the mapping says how to sign it.",
    )
    SIGNING = (
        "Signing",
        About.IMAGE,
        "The modules in the image are being signed.",
        "The registry does not have the signed image, and the mapping says how to sign it.",
    )
    SIGN_WARNING = (
        "SignWarning",
        About.IMAGE,
        "The modules in the image were signed, but kernels may not take the signatures.",
        "The certificate has expired or is not valid yet, or the key is of a kind or size that many kernels refuse.",
        "The message says which. Where kernels refuse the driver: another key and certificate, in the same Secrets.",
    )
    SIGN_FAILED = (
        "SignFailed",
        About.IMAGE,
        (
            "Signing failed. It is tried again after 1 minute, then at growing intervals up to 1 hour; nothing is "
            "built again for it."
        ),
        (
            "Often a key that does not fit its certificate, a path in filesToSign that is not in the image, or no "
            "right to push."
        ),
        (
            "The message is what the task said last; for all of it: `kubectl get pods -n NAMESPACE -l "
            "kmm.node.kubernetes.io/job-type=sign`, then `kubectl logs`. A change of a Secret starts it at once."
        ),
    )
    CERTIFICATE_CHANGED = (
        "CertificateChanged",
        About.IMAGE,
        (
            "The image is signed with another certificate than the Module's now, and cannot be signed again as it "
            "is. What is loaded goes on."
        ),
        (
            "The Secret with the certificate was changed, and what the image was signed from is not in the registry "
            "any more."
        ),
        "If the new certificate is to be used: delete the image in the registry; it is then built and signed again.",
    )
    INPUT_MISSING = (
        "InputMissing",
        About.IMAGE,
        "Something that the build or signature needs is not there.",
        "A ConfigMap, a Secret or a key in it that the Module names does not exist in the Module's namespace.",
        (
            "Create what the message names: it goes on at once. `kubectl get configmaps,secrets -n NAMESPACE` lists "
            "what there is."
        ),
    )
    # ── A loader ──────────────────────────────────────────────────────────────────────────────────────────────
    IMAGE_PULL_FAILED = (
        "ImagePullFailed",
        About.LOADER,
        "A node cannot pull the image.",
        (
            "There is no such image, or none for the node's architecture, or the node has no credentials for it, or "
            "does not reach or trust the registry."
        ),
        (
            "Check containerImage for this kernel, and spec.imageRepoSecret. `kubectl describe pod` of the loader "
            "shows what the node was told."
        ),
    )
    LOAD_FAILED = (
        "LoadFailed",
        About.LOADER,
        "The driver could not be loaded, for a reason that is none of the others here.",
        "The message is what modprobe, or the script that ran it, said last.",
        "On the node that the message names: `journalctl -k` shows what the kernel said at that time.",
    )
    KEY_REJECTED = (
        "KeyRejected",
        About.LOADER,
        "The kernel does not trust the module's signature.",
        (
            "Secure Boot is on, and the module is not signed, was changed since, or is signed with a certificate "
            "that this node has not enrolled."
        ),
        (
            "On the node: `mokutil --list-enrolled`. Enrol the certificate (`mokutil --import CERTIFICATE.der`, then "
            "reboot), or sign with one that is enrolled. `kmm verify-module DRIVER.ko` says who signed it."
        ),
    )
    LOCKED_DOWN = (
        "LockedDown",
        About.LOADER,
        "The kernel, or the container's restrictions, forbid loading the module.",
        (
            "The kernel is locked down and takes modules only that are signed with an enrolled certificate, or it "
            "takes none any more, or the pod lacks the capability SYS_MODULE."
        ),
        (
            "On the node: `cat /sys/kernel/security/lockdown /proc/sys/kernel/modules_disabled`. [integrity]: sign "
            "the module and enrol the certificate. 1: reboot. [none] and 0: check the loader's service account and "
            "security context constraint."
        ),
    )
    WRONG_FORMAT = (
        "WrongFormat",
        About.LOADER,
        "The module, or the image's programs, were made for another kernel or architecture.",
        (
            "The mapping leads this kernel to the wrong image, or the image holds a module built against other "
            "headers, or is for another architecture."
        ),
        (
            "On the node, compare `uname -rm` with `modinfo -F vermagic DRIVER.ko` from the image, then correct the "
            "mapping or build the image again."
        ),
    )
    UNKNOWN_SYMBOL = (
        "UnknownSymbol",
        About.LOADER,
        "Another module that this one needs is not loaded, or it does not know a parameter.",
        (
            "The image lacks that module, or depmod was not run when the image was built, or the order is wrong. "
            "Kernels say the same where a driver lacks its firmware."
        ),
        (
            "On the node: `journalctl -k` names the symbol, the parameter or the firmware. `modinfo -F depends "
            "DRIVER.ko` names what is needed: run depmod in the image's build, or list the modules in "
            "modprobe.modulesLoadingOrder."
        ),
    )
    FILE_MISSING = (
        "FileMissing",
        About.LOADER,
        "A file that loading needs is not where it is looked for.",
        "The image does not hold the module for this kernel, or modprobe.dirName is wrong.",
        (
            "List what the image holds under dirName/lib/modules/KERNEL, and compare it with modprobe.dirName and "
            "modprobe.moduleName."
        ),
    )
    FIRMWARE_MISSING = (
        "FirmwareMissing",
        About.LOADER,
        "Firmware of the driver could not be copied to the node, or the kernel did not find it.",
        (
            "modprobe.firmwarePath names no files of the image, or /var/lib/firmware cannot be written, or the "
            "node's kernel does not look there."
        ),
        (
            "Check modprobe.firmwarePath. On the node: `cat /sys/module/firmware_class/parameters/path` must say "
            "/var/lib/firmware: the kernel argument `firmware_class.path=/var/lib/firmware` sets it."
        ),
    )
    COMMAND_MISSING = (
        "CommandMissing",
        About.LOADER,
        "The image lacks a command that loading needs.",
        "It holds no modprobe or no sleep, or no /bin/sh, which firmware, loading order and in-tree modules need.",
        "Install kmod and coreutils, or BusyBox, in the image's last stage, then build it again.",
    )
    NO_DEVICE = (
        "NoDevice",
        About.LOADER,
        "The driver found no device that it drives.",
        "The node does not have the hardware, or not of a kind that this release of the driver knows.",
        (
            "On the node: `lspci -nnk` or `lsusb` shows what there is. Select only nodes that have it, in "
            "spec.selector."
        ),
    )
    DRIVER_CONFLICT = (
        "DriverConflict",
        About.LOADER,
        "Another driver has the device, or a name in the kernel, that this one wants.",
        "The kernel's own driver for the device is loaded, or another release of this one under another name.",
        (
            "On the node: `lspci -k` names the driver in use, `journalctl -k` the conflict. List that driver in "
            "moduleLoader.container.inTreeModulesToRemove."
        ),
    )
    MODULE_IN_USE = (
        "ModuleInUse",
        About.LOADER,
        "A module is in use and cannot be unloaded. What is loaded stays loaded as it was.",
        "A program or another module holds it. It is the driver, or one of inTreeModulesToRemove.",
        (
            "On the node: `lsmod` names the modules that hold it, `lsof` the programs. Stop them, then `modprobe -r` "
            "there, or reboot the node. A new loader does not replace what is still loaded."
        ),
    )
    UNLOAD_FAILED = (
        "UnloadFailed",
        About.LOADER,
        "The command that unloads the driver failed, and the driver may still be loaded as it was.",
        "Most often it is in use. Kubelets of Kubernetes 1.26 and later do not tell what the command said.",
        (
            "On the node: `lsmod` shows whether it is loaded, and the modules that hold it, `lsof` the programs. "
            "Stop them, then `modprobe -r` there, or reboot the node."
        ),
    )
    # ── A device plugin ───────────────────────────────────────────────────────────────────────────────────────
    DEVICE_PLUGIN_READY = (
        "DevicePluginReady",
        About.DEVICE_PLUGIN,
        "The device plugin runs wherever the driver is to be loaded.",
        "Its pods are available.",
    )
    DEVICE_PLUGIN_STARTING = (
        "DevicePluginStarting",
        About.DEVICE_PLUGIN,
        "The device plugin does not run yet on every node where the driver is to be loaded.",
        "It starts on a node once the driver is loaded there; or its pod cannot start.",
        (
            "If the driver is loaded everywhere and it stays so: `kubectl get pods -n NAMESPACE -l "
            "kmm.node.kubernetes.io/role=device-plugin -o wide`, then `kubectl logs` of one that is not ready."
        ),
    )
    NO_DEVICE_PLUGIN = (
        "NoDevicePlugin",
        About.DEVICE_PLUGIN,
        "The Module asks for no device plugin.",
        "spec.devicePlugin is not set.",
    )
    # ── An object in the cluster ──────────────────────────────────────────────────────────────────────────────
    NAME_TAKEN = (
        "NameTaken",
        About.OBJECT,
        "An object that is not this Module's has the name that an object of it would have.",
        "Somebody made it by hand, or restored it from a backup.",
        "See what it is, then delete it: `kubectl delete -n NAMESPACE KIND OBJECT`. The message names it.",
    )
    DRIFT_REVERTED = (
        "DriftReverted",
        About.OBJECT,
        "Somebody edited an object that the operator keeps, and the edit was taken back.",
        "A person, or another controller, changed a DaemonSet of a Module.",
        (
            "Change the Module instead. If it goes on: `kubectl get daemonset OBJECT -n NAMESPACE -o yaml "
            "--show-managed-fields` names who edits it."
        ),
    )
    SELECTOR_CHANGED = (
        "SelectorChanged",
        About.OBJECT,
        "A DaemonSet was deleted and made anew, so its driver was reloaded.",
        "It came from another operator with another selector, and a selector cannot be changed.",
    )
    TAKEN_OVER = (
        "TakenOver",
        About.OBJECT,
        "An object of the Go operator's is kept by this one from now on.",
        "This operator has replaced it. Drivers stay loaded where the object was kept as it is.",
    )
    WRITE_REFUSED = (
        "WriteRefused",
        About.OBJECT,
        "The API server refuses to create or change an object that the Module needs.",
        (
            "The operator lacks a right, or a quota, a webhook or an admission policy says no; or what serves that "
            "kind of object is away, as an API group of its own may be."
        ),
        (
            "The message says which. For rights: `kmm manifests rbac -n OPERATOR_NAMESPACE | kubectl apply -f -`. "
            "It is tried again by itself, at growing intervals up to 1 minute."
        ),
    )
    # ── A plugin of the operator, where `kmm plugins`, /readyz and the log say that it is not used ────────────
    NOT_ALLOWED = (
        "NotAllowed",
        About.PLUGIN,
        "The plugin is installed and was not imported.",
        "It is none of the operator's own, and plugins.allow does not list its distribution.",
        "If it is to run with the operator's rights: add the distribution to plugins.allow, or to KMM_PLUGINS_ALLOW.",
    )
    NOT_INSTALLED = (
        "NotInstalled",
        About.PLUGIN,
        "The configuration names a plugin that is not installed.",
        "It is misspelt, or missing in the operator's image.",
        "Correct plugins.allow or plugins.options, or install it: `pip install DISTRIBUTION`.",
    )
    OTHER_CONTRACT = (
        "OtherContract",
        About.PLUGIN,
        "The plugin is made for another version of the plugin contract, and was not imported.",
        "Operator and plugin are of different generations.",
        "Install the release of the plugin that fits this operator: `pip install --upgrade DISTRIBUTION`.",
    )
    DUPLICATE_NAME = (
        "DuplicateName",
        About.PLUGIN,
        "Two plugins have, or offer something of, the same name. Neither is used for it, as no guess would do.",
        "Two distributions claim the name; the message names both.",
        "Uninstall one of them: `pip uninstall DISTRIBUTION`; or take it off plugins.allow.",
    )
    BAD_SETTINGS = (
        "BadSettings",
        About.PLUGIN,
        "The plugin does not accept its configuration.",
        "An option under plugins.options is wrong or missing.",
        "Correct what the message names, then start the operator again.",
    )
    IMPORT_FAILED = (
        "ImportFailed",
        About.PLUGIN,
        "The plugin cannot be imported.",
        "Something that it needs is not installed, or it is broken.",
        "`pip check` lists requirements that are missing. Otherwise give the message to its maintainer.",
    )
    HOOK_RAISED = (
        "HookRaised",
        About.PLUGIN,
        "The plugin failed when it was asked what it offers.",
        "A fault in it, or in what surrounds it.",
        "Give the message to its maintainer.",
    )
    WRONG_RESULT = (
        "WrongResult",
        About.PLUGIN,
        "The plugin offers something that is not what the contract asks for.",
        "A fault in it.",
        "Give the message to its maintainer, who finds the contract in docs/hooks.md.",
    )
    NO_HOOKS = (
        "NoHooks",
        About.PLUGIN,
        "The plugin defines none of the hooks.",
        "Its entry point names the wrong module, or its functions do not begin with `kmm_`.",
        "Give the message to its maintainer, who finds the hooks in docs/hooks.md.",
    )
    UNKNOWN_HOOK = (
        "UnknownHook",
        About.PLUGIN,
        "The plugin defines a hook that does not exist.",
        "Its name is misspelt, or of a later release of the contract.",
        "Give the message to its maintainer, or install a later operator.",
    )
    BAD_HOOK = (
        "BadHook",
        About.PLUGIN,
        "A hook of the plugin cannot be called.",
        "It is async, a generator or no function, or has parameters that nobody fills.",
        "Give the message to its maintainer, who finds the hooks in docs/hooks.md.",
    )
    BAD_NAME = (
        "BadName",
        About.PLUGIN,
        "The plugin's name cannot be used.",
        "The name of its entry point has other characters than lower-case letters, digits and dashes.",
        "Give the message to its maintainer.",
    )
    BAD_GROUP = (
        "BadGroup",
        About.PLUGIN,
        "The distribution declares a plugin in a group that is nearly, but not quite, the operator's.",
        "The entry-point group is misspelt.",
        "Give the message to its maintainer.",
    )
    BAD_METADATA = (
        "BadMetadata",
        About.PLUGIN,
        "What pip noted about the plugin cannot be read.",
        "Its installation was interrupted, or its files were changed.",
        "Install it again: `pip install --force-reinstall DISTRIBUTION`.",
    )
    BROKEN = (
        "Broken",
        About.PLUGIN,
        "The plugin failed in a way that nobody foresaw.",
        "A fault in it.",
        "Give the message to its maintainer.",
    )


_BY_WORD = {str(each): each for each in Reason}


def reason_of(word: object) -> Reason | None:
    """Return the reason that a status or an event names, or None where it is none of ours."""
    return _BY_WORD.get(word) if isinstance(word, str) else None
