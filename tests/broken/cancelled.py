import asyncio


def kmm_builders(settings):
    raise asyncio.CancelledError
