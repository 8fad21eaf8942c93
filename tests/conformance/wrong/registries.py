"""Registries: what each of them does wrongly it is called after."""

from collections import Counter
from dataclasses import replace

import good

from kmm.contract import Forbidden, Unavailable


class Registry(good.Registry):
    def __init__(self):
        super().__init__(self.rule, (f"{self.rule}.example.com",))


class Misnames(Registry):
    rule = "an-image-that-is-there-is-told-of"

    def inspect(self, image, access, deadline_s, files=(), annotations=False):
        found = super().inspect(image, access, deadline_s, files, annotations)
        return found and replace(found, files={})


class Hesitates(Registry):
    rule = "an-image-that-is-not-there-is-none"

    def inspect(self, *question):
        found = super().inspect(*question)
        if found is None:
            raise Unavailable("it may come")
        return found


class Guesses(Registry):
    rule = "a-refusal-is-forbidden"

    def inspect(self, *question):
        try:
            return super().inspect(*question)
        except Forbidden:
            return None


class Optimist(Registry):
    rule = "no-answer-is-unavailable"

    def inspect(self, *question):
        try:
            return super().inspect(*question)
        except Unavailable:
            return None


class Patient(Registry):
    rule = "deadlines-are-kept"

    def inspect(self, image, access, deadline_s, files=(), annotations=False):
        return super().inspect(image, access, deadline_s * 3, files, annotations)


class Talks(Registry):
    rule = "no-credential-is-in-any-text"

    def inspect(self, image, access, deadline_s, files=(), annotations=False):
        try:
            return super().inspect(image, access, deadline_s, files, annotations)
        except Forbidden as error:
            used = [each.password for each in access.credentials]
            raise Forbidden(f"{error} with {used}") from None


ASKED = Counter()


class Forgets(Registry):
    rule = "the-same-question-has-the-same-answer"

    def inspect(self, *question):
        ASKED[question[0]] += 1
        return None if ASKED[question[0]] % 8 == 0 else super().inspect(*question)


def kmm_registries(settings):
    settings.only()
    return [Misnames(), Hesitates(), Guesses(), Optimist(), Patient(), Talks(), Forgets()]
