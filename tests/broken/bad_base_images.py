class BaseImages:
    name = "bad-base-images"
    argument = "KERNEL_VERSION"
    listing = None
    release_file = ""

    def images(self, listing):
        return {}

    def os_version(self, os_image):
        return ""

    def kernels(self, release):
        return ()


def kmm_base_images(settings):
    return [BaseImages()]
