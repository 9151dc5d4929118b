"""What vs_numpy.py compares: NumPy's ways to dropout, ReLU and training beside cydrop's, a file each."""
