async def kmm_builders(settings):
    return []
