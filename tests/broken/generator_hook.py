def kmm_builders(settings):
    yield None
