def kmm_builders(settings):
    settings.only("mirror")
    return []
