def kmm_builders(setings):
    return []
