import threading

threading.Thread(target=threading.Event().wait, daemon=True).start()


def kmm_drivers(settings):
    settings.only()
    return []
