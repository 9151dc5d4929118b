"""The ground that all else stands on: checks of arguments, declarations, seeds, threads, types of arrays."""
