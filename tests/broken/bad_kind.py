from good import Builder as Good

from kmm.contract import Kind


class Builder(Good):
    name = "bad-kind"
    owns = (Kind(api_version=1, kind=5, plural=None),)


def kmm_builders(settings):
    return [Builder()]
