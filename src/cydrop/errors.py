"""What cydrop raises besides ValueError and TypeError."""

__all__ = ["DivergedError"]


USUAL = (
    "the parameters are those of the last finished epoch of fit, or from before the call. Try a smaller learning rate, "
    "clip_norm=1.0, or standardised inputs"
)


class DivergedError(ArithmeticError):
    """The training loss, a parameter, a running statistic or a moment of the optimizer became infinite or NaN.

    The network's parameters and running statistics are those of the last finished epoch (of `fit`) or those before the
    call (of `partial_fit` and `train_on_batch`), and the optimizer's moments start afresh. Usual remedies: a smaller
    learning rate, `clip_norm=1.0`, standardised inputs.

    Attributes
    ----------
    epoch, batch : int
        Where it happened, counted from 1.
    advice : str
        What is left, and what to try.
    """

    def __init__(self, epoch: int, batch: int, advice: str = USUAL) -> None:
        super().__init__(epoch, batch, advice)
        self.epoch = epoch
        self.batch = batch
        self.advice = advice

    def __str__(self) -> str:
        return (
            f"the loss or the parameters stopped being finite in epoch {self.epoch}, batch {self.batch}; {self.advice}"
        )
