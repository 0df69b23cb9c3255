"""Training that is differentially private: `python train_encrypted.py --private EPSILON`."""


def with_privacy(args, model):
    """The `script.Private` of a run; None without `args.private`."""
    if not args.private:
        return None
    from smpc.privacy.script import Private  # here, since its accounting takes seconds to import

    return Private(args, model)
