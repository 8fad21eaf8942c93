from good import Builder as Good


class Builder(Good):
    name = "bad-signature"

    def render(self):
        return []


def kmm_builders(settings):
    return [Builder()]
