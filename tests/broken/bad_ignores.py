from good import Builder as Good


class Builder(Good):
    name = "bad-ignores"
    ignores = ("base_tsl",)


def kmm_builders(settings):
    return [Builder()]
