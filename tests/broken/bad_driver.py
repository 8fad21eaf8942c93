from kmm.contract import Driver


def kmm_drivers(settings):
    return [Driver(name="bad", spec={"moduleLoader": {"container": {"modprobe": {"modulName": "x"}}}})]
