"""`python -m connector`: the same as the `connector` command."""

from connector.cli import main

if __name__ == "__main__":
    main()
