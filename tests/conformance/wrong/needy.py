from kmm.contract import SettingsError


def kmm_drivers(settings):
    if "mirror" not in settings.only("mirror"):
        raise SettingsError("mirror: is required")
    return []
