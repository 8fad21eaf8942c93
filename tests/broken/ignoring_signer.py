from good import Builder


class Signer(Builder):
    name = "ignoring-signer"
    requires = ()
    ignores = ("push_tls",)


def kmm_signers(settings):
    return [Signer()]
