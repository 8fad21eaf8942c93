"""What knows base images: what each of them does wrongly it is called after."""

import os

import good

from kmm.contract import Listing


class Toolkits(good.Toolkits):
    @property
    def name(self):
        return self.rule

    @property
    def argument(self):
        return type(self).__name__.upper()


class Nowhere(Toolkits):
    rule = "its-list-can-be-followed"
    listing = Listing(kind=good.Toolkits.listing.kind, namespace="good", name="../toolkits")


class Expects(Toolkits):
    rule = "images-answers-whatever-is-listed"

    def images(self, listing):
        return super().images(listing) if listing is not None else None


class Splits(Toolkits):
    rule = "os-version-answers-whatever-a-node-says"

    def os_version(self, os_image):
        return os_image.split()[1]


class Decodes(Toolkits):
    rule = "kernels-answers-whatever-an-image-holds"

    def kernels(self, release):
        return release.decode().split()


class Sorts(Toolkits):
    rule = "a-list-is-left-as-it-was"

    def images(self, listing):
        if listing:
            listing.pop("status", None)
        return super().images(listing)


class Unordered(Toolkits):
    rule = "equal-questions-are-answered-equally"

    def kernels(self, release):
        return [next(iter({f"{number}.0" for number in range(20)}))]


class Localized(Toolkits):
    rule = "it-asks-for-nothing-but-what-it-is-told"

    def os_version(self, os_image):
        return super().os_version(os_image) if os.environ.get("KMM_NO_SUCH") is None else ""


def kmm_base_images(settings):
    settings.only()
    return [Nowhere(), Expects(), Splits(), Decodes(), Sorts(), Unordered(), Localized()]
