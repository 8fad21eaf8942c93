def kmm_builders(settings):
    raise ZeroDivisionError("the\nmessage")
