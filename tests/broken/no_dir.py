def kmm_builders(settings):
    return []


def __dir__():
    raise RuntimeError("no names today")
