from kmm.contract import Driver, Finding, Kind, Progress, State


class Builder:
    name = "good"
    owns = (Kind(api_version="batch/v1", kind="Job", plural="jobs"),)
    requires = ("dockerfile",)

    def render(self, request):
        return [{"apiVersion": "batch/v1", "kind": "Job"}]

    def observe(self, objects, pods):
        return Progress(state=State.PENDING)


def kmm_builders(settings):
    settings.only("mirror")
    return [Builder()]


def kmm_drivers():
    return [Driver(name="good-nic", spec={"moduleLoader": {"container": {"modprobe": {"moduleName": "good"}}}})]


def kmm_validate_module(module):
    return [] if module["metadata"]["name"] != "bad" else [Finding(path="metadata.name", message="is bad")]


records = []


def kmm_observe(record):
    records.append(record)
