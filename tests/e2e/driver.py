"""A driver that is built, signed and loaded for real: two modules, and firmware that one of them asks for."""

from __future__ import annotations

from typing import Any

IN_TREE = "loop"
CORE = """\
#include <linux/module.h>
int acme_core_answer(void);
int acme_core_answer(void) { return 42; }
EXPORT_SYMBOL_GPL(acme_core_answer);
MODULE_LICENSE("GPL");
"""
# It needs acme_core and its firmware, shows what it was given, and is in use while /dev/acme is open.
DRIVER = """\
#include <linux/firmware.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
int acme_core_answer(void);
static int answer;
module_param(answer, int, 0444);
static char *greeting;
module_param(greeting, charp, 0444);
static char firmware[32];
module_param_string(firmware, firmware, sizeof(firmware), 0444);
static const struct file_operations operations = { .owner = THIS_MODULE };
static struct miscdevice device = { .minor = MISC_DYNAMIC_MINOR, .name = "acme", .fops = &operations };
static int __init acme_init(void) {
    const struct firmware *found;
    int error = misc_register(&device);
    if (error) return error;
    error = request_firmware(&found, "acme/acme.bin", device.this_device);
    if (error) { misc_deregister(&device); return error; }
    memcpy(firmware, found->data, min(found->size, sizeof(firmware) - 1));
    release_firmware(found);
    answer = acme_core_answer();
    return 0;
}
static void __exit acme_exit(void) { misc_deregister(&device); }
module_init(acme_init);
module_exit(acme_exit);
MODULE_LICENSE("GPL");
"""
FIRMWARE = "what the card runs"
GREETING = "hello  $(id) world"
LOADS: dict[str, Any] = {
    "modprobe": {"moduleName": "acme", "firmwarePath": "/firmware", "parameters": [f"greeting='{GREETING}'"]},
    "inTreeModulesToRemove": [IN_TREE],
}


def dockerfile(host: str) -> str:
    """Return what builds it, from base images of the registry on `host`."""

    def written(text: str) -> str:
        return " ".join(f"'{line}'" for line in text.splitlines())

    return f"""
        FROM {host}/base/toolkit:1 AS build
        ARG KERNEL_VERSION
        WORKDIR /src
        RUN printf '%s\\n' {written(CORE)} >acme_core.c
        RUN printf '%s\\n' {written(DRIVER)} >acme.c
        RUN echo 'obj-m := acme.o acme_core.o' >Makefile
        RUN make -C "/lib/modules/$KERNEL_VERSION/build" M=/src modules
        FROM {host}/base/kmod:1
        ARG KERNEL_VERSION
        COPY --from=build /src/acme.ko /src/acme_core.ko /opt/lib/modules/$KERNEL_VERSION/
        RUN depmod -b /opt $KERNEL_VERSION && mkdir -p /firmware/acme && printf '{FIRMWARE}' >/firmware/acme/acme.bin
        """
