from good import Builder


def kmm_builders(settings):
    return [Builder]
