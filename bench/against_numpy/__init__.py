"""What vs_numpy.py compares: NumPy's ways to dropout, ReLU and training next to cydrop's, a file each."""
