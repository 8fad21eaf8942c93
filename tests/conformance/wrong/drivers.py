"""Drivers: what each of them does wrongly it is called after."""

import good

import kmm.catalog
from kmm.contract import Driver

merge = kmm.catalog.merge


def stubborn(defaults, spec):
    own = {"moduleLoader": good.SPEC["moduleLoader"]} if defaults.get("selector") == {"acme": ""} else {}
    return {**merge(defaults, spec), **own}


# Defaults are data, so that a driver has to go this far.
kmm.catalog.merge = stubborn


def kmm_drivers(settings):
    settings.only()
    without_a_mapping = {"moduleLoader": {"container": {"modprobe": {"moduleName": "acme"}}}}
    return [
        Driver(name="the-merged-module-is-valid", spec=without_a_mapping),
        Driver(name="what-a-user-sets-stands", spec={**good.SPEC, "selector": {"acme": ""}}),
    ]
