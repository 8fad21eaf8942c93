def kmm_bilders(settings):
    return []
