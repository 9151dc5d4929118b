"""What cydrop raises besides ValueError and TypeError."""


class DivergedError(ArithmeticError):
    """The training loss became infinite or NaN.

    The network's parameters are those of the last finished epoch (of `fit`) or those before the batch
    (of `partial_fit` and `train_on_batch`), and the optimizer's moments are cleared. Usual remedies: a smaller
    learning rate, `clip_norm=1.0`, standardised inputs.

    Attributes
    ----------
    epoch, batch : int
        Where it happened, counted from 1.
    """

    def __init__(self, epoch: int, batch: int) -> None:
        super().__init__(epoch, batch)
        self.epoch = epoch
        self.batch = batch

    def __str__(self) -> str:
        return (
            f"the loss stopped being finite in epoch {self.epoch}, batch {self.batch}; the parameters are those "
            "of the last finished epoch of fit, or from before the batch. Try a smaller learning rate, "
            "clip_norm=1.0, or standardised inputs"
        )
