from good import Builder as Good


class Builder(Good):
    name = "bad-requires"
    requires = ("dockerfil",)


def kmm_builders(settings):
    return [Builder()]
