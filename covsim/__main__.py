"""`python -m covsim`: the command line."""

from covsim.cli import main

if __name__ == "__main__":
    main()
