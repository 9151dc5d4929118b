"""The network: composes layers, loss and optimizer, checks arguments and calls what runs."""

from cydrop.network._network import Network, check_network, load, of_core

__all__ = ["Network", "check_network", "load", "of_core"]

Network.__module__ = load.__module__ = check_network.__module__ = __name__  # what pickles name
