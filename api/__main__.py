"""The `xsam` command, also as `python -m xsam.api`; says what is missing where only the library was installed."""

import sys

try:
    from xsam.api.cli.main import main
except ModuleNotFoundError as e:
    if (e.name or "xsam").split(".")[0] == "xsam":
        raise
    sys.exit(f"xsam needs the packages of its `service` extra ({e.name} is missing): pip install 'xsam[service]'")

if __name__ == "__main__":
    main()
