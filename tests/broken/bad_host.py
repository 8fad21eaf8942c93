class Registry:
    name = "bad-host"
    hosts = ("https://quay.example",)

    def inspect(self, image, access, deadline_s, files=(), annotations=False):
        return None


def kmm_registries(settings):
    return [Registry()]
