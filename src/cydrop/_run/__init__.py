"""What runs: plans, their memory, the rows to train on. No layer is imported here: a layer puts itself into a plan."""
