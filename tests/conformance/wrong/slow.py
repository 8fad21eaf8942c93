import time

until_s = time.process_time() + 0.3
while time.process_time() < until_s:
    pass


def kmm_drivers(settings):
    settings.only()
    return []
