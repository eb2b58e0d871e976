"""`python -m api`: the `xsam` command, for where the script is not on the path."""

from api.cli import main

if __name__ == "__main__":
    main()
