"""The ground that everything else stands on: checks of arguments, declarations, seeds, threads, types of arrays."""
