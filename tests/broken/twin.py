from good import Builder as Good


class Builder(Good):
    name = "twin"


def kmm_builders(settings):
    return [Builder()]
