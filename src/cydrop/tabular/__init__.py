"""Tables as they are, prepared for networks. Needs scikit-learn 1.6 or newer."""

__all__: list[str] = []
