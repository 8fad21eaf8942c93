"""What judges Modules, or is told of them: what each of them does wrongly its entry point is called after."""

import time

from kmm.contract import Finding


class Told:
    @staticmethod
    def kmm_observe(record):
        record.module.name.upper()


class Expects:
    @staticmethod
    def kmm_validate_module(module):
        (mapping,) = module["spec"]["moduleLoader"]["container"]["kernelMappings"]
        return [] if mapping["build"] else [Finding(path="spec", message="has no build")]


class Unordered:
    @staticmethod
    def kmm_validate_module(module):
        return [Finding(path=each, message="is odd") for each in {f"spec.{number}" for number in range(20)}]


class Timed:
    @staticmethod
    def kmm_validate_module(module):
        return [Finding(path="spec", message="is old")] if time.time() < 0 else []
