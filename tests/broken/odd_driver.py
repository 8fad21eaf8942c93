from kmm.contract import Driver


def kmm_drivers(settings):
    return [Driver(name="odd", spec={"selector": {1: 2}})]
