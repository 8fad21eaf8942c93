from bad_base_images import BaseImages as Bad


class BaseImages(Bad):
    name = "bad-listing"
    argument = "TOOLKIT"
    listing = ("openshift", "driver-toolkit")


def kmm_base_images(settings):
    return [BaseImages()]
