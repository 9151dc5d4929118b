"""`python -m cydrop` prints what a bug report should say."""

from cydrop.config import show_config

if __name__ == "__main__":
    for name, value in show_config().items():
        print(f"{name + ':':<20} {value}")
