from kmm.contract import Kind


class Builder:
    name = "half"
    owns = (Kind(api_version="batch/v1", kind="Job", plural="jobs"),)
    requires = ()

    def render(self, request):
        return []


def kmm_builders(settings):
    return [Builder()]
