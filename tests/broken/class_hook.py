class kmm_builders:  # noqa: N801 -- it is wrong
    def __init__(self, settings):
        pass
